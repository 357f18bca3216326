;; A component that speaks a version of the contract which does not exist yet.
(component
  (import "backstay:engine/grants@9.0.0" (instance
    (export "config" (func (result string)))
  ))
)
