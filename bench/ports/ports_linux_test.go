package main

import (
	"testing"

	"github.com/portsplice/portsplice/bench/internal/benchtest"
)

func TestMain(m *testing.M) { benchtest.Main(m, main) }

func TestServesMoreThanOnePort(t *testing.T) { benchtest.ManyPorts(t, 3) }
