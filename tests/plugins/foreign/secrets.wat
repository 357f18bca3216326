;; A component that imports an interface which only looks like the contract's.
(component
  (import "backstay:engine/secrets@0.1.0" (instance
    (export "all" (func (result (list string))))
  ))
)
