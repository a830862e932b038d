//go:build !linux

package tcpsuite

// systemTests are those that only this system can bring about.
var systemTests []behaviour
