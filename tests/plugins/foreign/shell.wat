;; A component that wants more than the contract: the environment and a shell.
;; The host must refuse it by its imports, before a line of it is compiled.
(component
  (import "wasi:cli/environment@0.2.0" (instance
    (export "get-arguments" (func (result (list string))))
  ))
  (import "evil:host/shell" (instance
    (export "run" (func (param "command" string)))
  ))
)
