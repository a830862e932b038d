package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRoundsAlternate(t *testing.T) {
	proxies := []Proxy{{Name: Direct, Protocols: []string{tcp, udp}}, {Name: "a", Path: "a", Protocols: []string{tcp}},
		{Name: "b", Path: "b", Protocols: []string{tcp, udp}}}
	for _, test := range []struct {
		name string
		work Work
		want []string
	}{
		{"traffic", Work{Protocol: tcp}, []string{
			"direct 0", "a 0", "b 0", "a 1", "b 1", "direct 1", "b 2", "direct 2", "a 2"}},
		{"no proxy does not start", Work{Protocol: tcp, Kind: idlePorts}, []string{
			"a 0", "b 0", "a 1", "b 1", "b 2", "a 2"}},
		{"long", Work{Protocol: tcp, Time: 1}, []string{
			"a 1", "b 1", "direct 1", "b 2", "direct 2", "a 2"}},
		{"what a proxy does not relay", Work{Protocol: udp}, []string{
			"direct 0", "b 0", "b 1", "direct 1", "b 2", "direct 2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := Rounds(t.Context(), twice, test.work, proxies, constant)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range r.Samples {
				got = append(got, fmt.Sprint(s.Proxy, " ", s.Round))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

var twice = Set{Rounds: 2, Time: time.Minute}

func constant(context.Context, Work, Proxy, time.Duration) (Values, error) {
	return Values{"x": 1}, nil
}

func TestRoundsLeaveOutWhatFails(t *testing.T) {
	proxies := []Proxy{
		{Name: "a", Path: "a", Protocols: []string{tcp}},
		{Name: "missing", Protocols: []string{tcp}},
		{Name: "unable", Path: "u", Protocols: []string{tcp}, Cannot: map[string]string{"crr": "loses bytes"}},
		{Name: "b", Path: "b", Protocols: []string{tcp}},
	}
	r, err := Rounds(t.Context(), twice, Work{Name: "crr", Protocol: tcp}, proxies,
		func(_ context.Context, _ Work, p Proxy, d time.Duration) (Values, error) {
			if p.Name == "a" && d == twice.Time { // the first round is shorter
				return nil, errors.New("broken")
			}
			return nil, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	want := []Sample{
		{Work: "crr", Proxy: "a"}, {Work: "crr", Proxy: "b"},
		{Work: "crr", Proxy: "b", Round: 1}, {Work: "crr", Proxy: "a", Round: 1, Failed: "broken"},
		{Work: "crr", Proxy: "b", Round: 2},
	}
	if diff := cmp.Diff(want, r.Samples); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"crr, proxy a, round 1: broken"}, r.Failures()); diff != "" {
		t.Error(diff)
	}
}

func TestRoundsEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Rounds(ctx, twice, Work{Protocol: tcp}, []Proxy{{Name: Direct, Protocols: []string{tcp}}},
		func(context.Context, Work, Proxy, time.Duration) (Values, error) {
			cancel()
			return nil, nil
		})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSelect(t *testing.T) {
	all := Works(1 << 20)
	for _, test := range []struct {
		list string
		want int
	}{
		{"", len(all)},
		{"crr", 1},
		{"pingpong", 14},
		{"udp-echo", 2},
		{"bulk/direction=up", 3},
		{"bulk/direction=up,crr", 4},
		{"pingpong/size=64/conns=1", 1}, // and not conns=1000
	} {
		t.Run(test.list, func(t *testing.T) {
			works, err := Select(all, test.list)
			if err != nil || len(works) != test.want {
				t.Errorf("%d works, %v; want %d", len(works), err, test.want)
			}
		})
	}
	if _, err := Select(all, "crr,ping"); err == nil {
		t.Error("half a name was taken")
	}
}

func TestSets(t *testing.T) {
	for name := range sets {
		t.Run(name, func(t *testing.T) {
			s, err := Set{}.complete(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Select(Works(1<<20), s.Works); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := (Set{}).complete("none", nil); err == nil {
		t.Error("a set that does not exist was found")
	}
}

func TestIdleConnectionsFitTheDescriptors(t *testing.T) {
	for _, test := range []struct {
		descriptors uint64
		work        string
		cannot      string // why six descriptors for each connection are too many
	}{
		{1 << 20, "idle/conns=10000", ""},
		{20_000, "idle/conns=9950", "needs 59700 descriptors of 20000"},
	} {
		works, err := Select(Works(test.descriptors), test.work)
		if err != nil {
			t.Fatal(err)
		}
		few, many := Proxy{Path: "few"}, Proxy{Path: "many", descriptors: socketsAndPipes}
		for _, p := range []*Proxy{&few, &many} {
			p.confine(Works(test.descriptors), test.descriptors)
		}
		if few.Absence(works[0]) != "" || many.Absence(works[0]) != test.cannot {
			t.Errorf("with %d descriptors: %q and %q", test.descriptors, few.Absence(works[0]), many.Absence(works[0]))
		}
	}
}

func TestAProcessForEachPortIsNotAskedForMany(t *testing.T) {
	works, err := Select(Works(1<<20), "pingpong-ports/size=64/ports=1000,crr")
	if err != nil {
		t.Fatal(err)
	}
	work, crr := works[0], works[1]
	one, many := Proxy{Path: "one"}, Proxy{Path: "many", manyPorts: true}
	for _, p := range []*Proxy{&one, &many} {
		p.confine(works, 1<<20)
	}
	if one.Absence(work) == "" || one.Absence(crr) != "" || many.Absence(work) != "" {
		t.Errorf("one: %q and %q, many: %q", one.Absence(work), one.Absence(crr), many.Absence(work))
	}
}

func TestSelectTakesEachOnce(t *testing.T) {
	works, err := Select(Works(1<<20), "crr,crr/conns=8,crr")
	if err != nil || len(works) != 1 {
		t.Errorf("selected %v, %v", works, err)
	}
}

func TestMissing(t *testing.T) {
	r := Result{Work: Work{Name: "crr", Protocol: tcp}, Proxies: []Proxy{
		{Name: Direct, Protocols: []string{tcp}},
		{Name: "a", Protocols: []string{tcp}},
		{Name: "datagrams only", Protocols: []string{udp}},
		{Name: "unable", Path: "u", Protocols: []string{tcp}, Cannot: map[string]string{"crr": "loses bytes"}},
	}}
	if diff := cmp.Diff([]string{"crr, proxy a: not installed"}, r.Missing()); diff != "" {
		t.Error(diff)
	}
}
