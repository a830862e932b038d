//go:build !linux

package leakcheck

// take sees nothing where there is no /proc: goroutines alone are checked there.
func take() (snapshot, error) { return nil, nil }
