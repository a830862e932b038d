package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

func TestRowsOfOurs(t *testing.T) {
	var o Options
	rig.Must(t, o.parseLoops("1,2"))
	o.Again = true
	var got []string
	for _, p := range ours(o, "") {
		if p.Ours() {
			got = append(got, fmt.Sprint(p.Name, p.Environment, p.Again))
		}
	}
	want := []string{"fallback[]", "splice[]", "udp[]", "splice@1[GOMAXPROCS=1]", "splice@2[GOMAXPROCS=2]", "splice-again[]splice",
		"udp@1[GOMAXPROCS=1]", "udp@2[GOMAXPROCS=2]", "udp-again[]udp"}
	equal(t, want, got)
	for _, bad := range []string{"", "0", "one", "1,"} {
		if new(Options).parseLoops(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// What a peer cannot do is work that there is.
func TestPeersCannotDoWhatThereIs(t *testing.T) {
	for _, p := range peers() {
		for work := range p.Cannot {
			if !slices.ContainsFunc(Works(1<<20), func(w Work) bool { return w.Name == work }) {
				t.Errorf("%s cannot do %q, which is no work", p.Name, work)
			}
		}
	}
}
