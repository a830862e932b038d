//go:build !linux

package udp

func engines() []engine { return []engine{portable} }
