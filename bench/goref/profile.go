//go:build profile

package main

import "github.com/portsplice/portsplice/internal/cpuprofile"

func init() { startProfile = cpuprofile.Start }
