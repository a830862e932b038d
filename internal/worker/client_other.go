//go:build !linux

package worker

import "errors"

// Ask finds no workers: dockerd starts proxies on Linux only.
func Ask[T Answer](string) ([]T, error) { return nil, nil }

// Stream is of workers, which are on Linux only.
type Stream struct{ Name string }

// Trace finds no workers.
func Trace(string, func(string) bool) ([]*Stream, error) { return nil, nil }

// Next has nothing to tell.
func (*Stream) Next() (Event, error) { return Event{}, errors.ErrUnsupported }

// Close does nothing.
func (*Stream) Close() error { return nil }
