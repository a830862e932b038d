//go:build !linux

package workers

import "github.com/portsplice/portsplice/internal/worker"

// Ask finds no workers: dockerd starts proxies on Linux only.
func Ask[T worker.Answer](string) ([]Answer[T], error) {
	return nil, nil
}

// EnterRootless has nowhere to go.
func EnterRootless(bool) error { return nil }

// Trace finds none either.
func Trace(string, func(namespace, name string) bool) ([]Stream, error) { return nil, nil }
