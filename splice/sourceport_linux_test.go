package splice

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePorts(t *testing.T) {
	for list, want := range map[string][]portRange{
		"":                  nil,
		"8080":              {{8080, 8080}},
		"1,2-4,10-10":       {{1, 1}, {2, 4}, {10, 10}},
		"32768-60999":       {{32768, 60999}},
		"x,70000,5-x,-,7":   {{7, 7}},
		"40000-40001,50000": {{40000, 40001}, {50000, 50000}},
	} {
		t.Run(list, func(t *testing.T) {
			if diff := cmp.Diff(want, parsePorts(list), cmp.AllowUnexported(portRange{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestReservedPorts: what net.ipv4.ip_local_reserved_ports keeps for others is passed over; if it is all, the kernel chooses.
func TestReservedPorts(t *testing.T) {
	for _, test := range []struct {
		name     string
		reserved []portRange
		want     []uint16
	}{
		{"none", nil, []uint16{100, 101, 102, 103, 100}},
		{"some", []portRange{{90, 100}, {102, 102}}, []uint16{101, 103, 101}},
		{"all", []portRange{{100, 103}}, []uint16{0, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := sourcePorts{first: 100, size: 4, reserved: test.reserved}
			var got []uint16
			for range test.want {
				got = append(got, s.take())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
