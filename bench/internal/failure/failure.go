// Package failure ends what any error ends, a measurement or a command: what finds one panics, and the outermost function
// makes an error of that again. It must not leave a goroutine: what has one of its own returns its errors.
package failure

import "fmt"

// failure is an error on its way out.
type failure struct{ error }

// Check fails if err is one.
func Check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// Must gives what came without an error.
func Must[T any](v T, err error) T {
	Check(err)
	return v
}

// Fail fails.
func Fail(format string, args ...any) { Check(fmt.Errorf(format, args...)) }

// Caught is how f failed.
func Caught(f func()) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = p.error
		default:
			panic(p)
		}
	}()
	f()
	return nil
}
