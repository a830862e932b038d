//go:build !linux

package main

// catchQuestions is for a signal that not every system has. The function that it returns waits for ever.
func catchQuestions() (wait func() error, err error) {
	return func() error { select {} }, nil
}
