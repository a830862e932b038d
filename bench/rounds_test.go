package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/internal/rig"
)

var twice = Set{Rounds: 2, Time: time.Minute}

func TestRoundsAlternate(t *testing.T) {
	proxies := []Proxy{{Name: Direct, Protocols: []string{tcp, udp}}, {Name: "a", Path: "a", Protocols: []string{tcp}},
		{Name: "b", Path: "b", Protocols: []string{tcp, udp}}}
	constant := func(context.Context, Work, Proxy, time.Duration) (Values, error) { return Values{"x": 1}, nil }
	for _, test := range []struct {
		name string
		work Work
		want []string
	}{
		{"traffic", Work{Protocol: tcp}, []string{
			"direct 0", "a 0", "b 0", "direct 1", "b 1", "a 1", "a 2", "b 2", "direct 2"}},
		{"no proxy does not start", Work{Protocol: tcp, Kind: idlePorts}, []string{
			"a 0", "b 0", "b 1", "a 1", "a 2", "b 2"}},
		{"long", Work{Protocol: tcp, Time: 1}, []string{
			"direct 1", "b 1", "a 1", "a 2", "b 2", "direct 2"}},
		{"what a proxy does not relay", Work{Protocol: udp}, []string{
			"direct 0", "b 0", "direct 1", "b 1", "b 2", "direct 2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, s := range Rounds(t.Context(), twice, test.work, proxies, constant).Samples {
				got = append(got, fmt.Sprint(s.Proxy, " ", s.Round))
			}
			equal(t, test.want, got)
		})
	}
}

// Of the rounds that count, each proxy is measured before each other one in as many as after it, and stands right behind both
// of its neighbours.
func TestRoundsGoBothWays(t *testing.T) {
	for _, names := range []string{"ab", "abc", "abcdefg"} {
		var proxies []Proxy
		for _, name := range names {
			proxies = append(proxies, Proxy{Name: string(name)})
		}
		orders := ""
		for round := 1; round <= 6; round++ {
			order := ""
			for _, p := range inRound(proxies, round) {
				order += p.Name
			}
			orders += order + "\n"
		}
		for i, a := range proxies {
			for _, b := range proxies[:i] {
				before := regexp.MustCompile(a.Name + ".*" + b.Name)
				if n := len(before.FindAllString(orders, -1)); n != 3 {
					t.Errorf("%s is before %s in %d of 6 rounds:\n%s", a.Name, b.Name, n, orders)
				}
			}
			next := proxies[(i+1)%len(proxies)].Name
			if !strings.Contains(orders, a.Name+next) || !strings.Contains(orders, next+a.Name) {
				t.Errorf("%s and %s are not behind each other:\n%s", a.Name, next, orders)
			}
		}
	}
}

func TestRoundsLeaveOutWhatFails(t *testing.T) {
	proxies := []Proxy{
		{Name: "a", Path: "a", Protocols: []string{tcp}},
		{Name: "missing", Protocols: []string{tcp}},
		{Name: "unable", Path: "u", Protocols: []string{tcp}, Cannot: map[string]string{"crr": "loses bytes"}},
		{Name: Direct, Protocols: []string{tcp}},
		{Name: "datagrams only", Protocols: []string{udp}},
	}
	r := Rounds(t.Context(), twice, Work{Name: "crr", Protocol: tcp}, proxies,
		func(_ context.Context, _ Work, p Proxy, d time.Duration) (Values, error) {
			if p.Name == "a" && d == twice.Time { // the first round is shorter
				return nil, errors.New("broken")
			}
			return nil, nil
		})
	want := []Sample{
		{Work: "crr", Proxy: "a"}, {Work: "crr", Proxy: Direct},
		{Work: "crr", Proxy: "a", Round: 1, Failed: "broken"}, {Work: "crr", Proxy: Direct, Round: 1},
		{Work: "crr", Proxy: Direct, Round: 2},
	}
	equal(t, want, r.Samples)
	equal(t, []string{"crr, proxy a, round 1: broken"}, r.Failures())
	equal(t, []string{"crr, proxy missing: not installed"}, r.Missing())
}

func TestRoundsEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := failure.Caught(func() {
		Rounds(ctx, twice, Work{Protocol: tcp}, []Proxy{{Name: Direct, Protocols: []string{tcp}}},
			func(context.Context, Work, Proxy, time.Duration) (Values, error) {
				cancel()
				return nil, nil
			})
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSelect(t *testing.T) {
	all := Works(1 << 20)
	for list, want := range map[string]int{
		"": len(all), "crr": 1, "pingpong": 14, "udp-echo": 2, "bulk/direction=up": 3, "bulk/direction=up,crr": 4,
		"pingpong/size=64/conns=1": 1, // and not conns=1000
		"crr,crr/conns=8,crr":      1, // each once
	} {
		if works, err := Select(all, list); err != nil || len(works) != want {
			t.Errorf("%q: %d works, %v; want %d", list, len(works), err, want)
		}
	}
	if _, err := Select(all, "crr,ping"); err == nil {
		t.Error("half a name was taken")
	}
}

// The works of the Makefile's quick set are there.
func TestQuickSet(t *testing.T) {
	b, err := os.ReadFile("../Makefile")
	rig.Must(t, err)
	quick := regexp.MustCompile(`(?m)^QUICK +:= .*-work (\S+)$`).FindSubmatch(b)
	if quick == nil {
		t.Fatal("the Makefile names no works in QUICK")
	}
	_, err = Select(Works(1<<20), string(quick[1]))
	rig.Must(t, err)
}

func TestWhatAProxyCannot(t *testing.T) {
	for _, test := range []struct {
		proxy       Proxy
		descriptors uint64
		work        string
		want        string
	}{
		{Proxy{}, 1 << 20, "idle/conns=10000", ""},
		{Proxy{descriptors: socketsAndPipes}, 1 << 20, "idle/conns=10000", ""},
		{Proxy{}, 20_000, "idle/conns=9950", ""},
		{Proxy{descriptors: socketsAndPipes}, 20_000, "idle/conns=9950", "needs 59700 descriptors of 20000"},
		{Proxy{}, 1 << 20, "crr/conns=8", ""},
		{Proxy{}, 1 << 20, "pingpong-ports/size=64/ports=1000", "has a process for each port"},
		{Proxy{manyPorts: true}, 1 << 20, "pingpong-ports/size=64/ports=1000", ""},
	} {
		all := Works(test.descriptors)
		works, err := Select(all, test.work)
		rig.Must(t, err)
		test.proxy.Path = "installed"
		test.proxy.confine(all, test.descriptors)
		if got := test.proxy.Absence(works[0]); got != test.want {
			t.Errorf("%+v with %d descriptors at %s: %q, want %q", test.proxy, test.descriptors, test.work, got, test.want)
		}
	}
}
