package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// What ps shows. As text each is for people; in JSON, and with printf in a template, it is a plain number.
type (
	count uint64        // of connections, flows, datagrams
	size  uint64        // bytes
	age   time.Duration // JSON has seconds
)

func (c count) String() string {
	if c < 100_000 {
		return strconv.FormatUint(uint64(c), 10)
	}
	return scaled(float64(c), "")
}

func (s size) String() string {
	if s < 1000 {
		return fmt.Sprintf("%d B", uint64(s))
	}
	return scaled(float64(s), "B")
}

// scaled gives three digits with a decimal prefix: 1.23 MB.
func scaled(value float64, unit string) string {
	prefix := 0
	for ; value >= 999.5 && prefix < len(prefixes)-1; prefix++ {
		value /= 1000
	}
	digits := max(0, 2-int(math.Log10(max(value, 1))))
	space := " "
	if unit == "" {
		space = ""
	}
	return strconv.FormatFloat(value, 'f', digits, 64) + space + prefixes[prefix] + unit
}

var prefixes = []string{"", "k", "M", "G", "T", "P", "E"}

// String gives one unit, the largest: 45s, 12m, 3h, 26d.
func (a age) String() string {
	d := time.Duration(max(a, 0))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

// MarshalJSON gives seconds.
func (a age) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(a).Seconds()) }

// known is a number that may not be known: "-", and null in JSON.
type known struct {
	value float64
	is    bool
}

// MarshalJSON gives the number, or null.
func (k known) MarshalJSON() ([]byte, error) {
	if !k.is {
		return []byte("null"), nil
	}
	return json.Marshal(k.value)
}

type (
	rate  struct{ known } // bytes per second
	share struct{ known } // of one
)

func (r rate) String() string {
	switch {
	case !r.is:
		return "-"
	case r.value < 999.5:
		return fmt.Sprintf("%.0f B/s", r.value)
	}
	return scaled(r.value, "B/s")
}

func (s share) String() string {
	if !s.is {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*s.value)
}
