//go:build !linux

// Package vanish is for Linux.
package vanish
