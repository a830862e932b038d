package main

import (
	"math"
	"strings"
	"testing"

	"github.com/portsplice/portsplice/bench/internal/usage"
)

// rounds are values by round, the first of which is dropped. What is NaN was not measured.
type rounds = []float64

// result makes a Result of one work from the values of each proxy and unit, whose names are together the key.
func result(units []Unit, values map[string]rounds) Result {
	r := Result{
		Work: Work{Name: "work/conns=1", Units: units, Protocol: tcp},
		Proxies: []Proxy{{Name: Direct}, {Name: "old", Reference: true}, {Name: "new", Reference: true},
			{Name: "ours"}, {Name: "again", Again: "ours"}},
	}
	for i := range r.Proxies {
		r.Proxies[i].Protocols, r.Proxies[i].Path = []string{tcp}, "/path"
	}
	r.Proxies = append(r.Proxies, Proxy{Name: "for something else", Protocols: []string{udp}})
	for key, byRound := range values {
		proxy, unit, _ := strings.Cut(key, " ")
		for round, v := range byRound {
			if !math.IsNaN(v) {
				r.Samples = append(r.Samples, Sample{Proxy: proxy, Round: round, Values: Values{unit: v}})
			}
		}
	}
	return r
}

func TestTable(t *testing.T) {
	for _, test := range []struct {
		name   string
		values map[string]rounds
		change func(*Result)
		want   string
	}{
		{"all", map[string]rounds{
			Direct + " op/s": {1, 100e3, 110e3, 130e3}, Direct + " " + usage.Others: {90, 1, 2, 3},
			"old op/s": {9e9, 40e3, 41e3, 42e3}, "old us/op": {9e9, 20, 21, 22},
			"new op/s": {9e9, 50e3, 50e3, 40e3}, "new us/op": {9e9, 24, 25, 26},
			"ours op/s": {1, 100e3, 75e3, 60e3}, "ours us/op": {1, 5, 22, 23},
			"again op/s": {1, 96e3, 72e3, 60e3}, "again us/op": {1, 6, 21, 24},
		}, nil, `
## work/conns=1

3 rounds; noise 9%; others took 1%..3% of the CPUs; NOISY: direct moved by 27%.

| proxy  | op/s ↑                        | us/op ↓                 |
| ---    | ---                           | ---                     |
| direct | 110.0k [100.0k..130.0k] 2.20x | -                       |
| old    | 41.0k [40.0k..42.0k] 0.82x    | 21.0 [20.0..22.0] ref   |
| new    | 50.0k [40.0k..50.0k] ref      | 25.0 [24.0..26.0] 1.19x |
| ours   | 75.0k [60.0k..100.0k] 1.50x   | 22.0 [5.00..23.0] ~     |
| again  | 72.0k [60.0k..96.0k] 1.50x    | 21.0 [6.00..24.0] ~     |
`},
		{"no reference", map[string]rounds{Direct + " op/s": {1, 10, 10}, "ours op/s": {1, 5, 5}}, nil, `
## work/conns=1

2 rounds.

| proxy  | op/s ↑            |
| ---    | ---               |
| direct | 10.0 [10.0..10.0] |
| old    | -                 |
| new    | -                 |
| ours   | 5.00 [5.00..5.00] |
| again  | -                 |
`},
		{"a row with a base is compared with it, and not with the reference that it is worse than", map[string]rounds{
			"old op/s": {1, 100, 100}, "ours op/s": {1, 200, 200}, "header op/s": {1, 190, 190},
		}, func(r *Result) {
			r.Proxies = append(r.Proxies, Proxy{Name: "header", Base: "ours", Protocols: []string{tcp}, Path: "/path"})
		}, `
## work/conns=1

2 rounds.

| proxy  | op/s ↑                   |
| ---    | ---                      |
| direct | -                        |
| old    | 100 [100..100] ref       |
| new    | -                        |
| ours   | 200 [200..200] 2.00x     |
| again  | -                        |
| header | **190 [190..190] 0.95x** |
`},
		{"it says why there are no figures", map[string]rounds{
			Direct + " op/s": {1, 10, 10}, "old op/s": {1, 5, 5},
		}, func(r *Result) {
			r.Proxies[2].Path = ""
			r.Proxies[3].Cannot = map[string]string{"work/conns=1": "loses bytes"}
			r.Samples = append(r.Samples, Sample{Proxy: "old", Round: 2, Failed: "broken"})
		}, `
## work/conns=1

2 rounds.

| proxy  | op/s ↑                  |
| ---    | ---                     |
| direct | 10.0 [10.0..10.0] 2.00x |
| old    | failed                  |
| new    | not installed           |
| ours   | loses bytes             |
| again  | -                       |
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := result([]Unit{{"op/s", true}, {"us/op", false}}, test.values)
			if test.change != nil {
				test.change(&r)
			}
			equal(t, test.want, r.String())
		})
	}
}

// The ratio is to the reference that leaves the worse one, and what two rows of one program let chance do is neither
// better nor worse.
func TestComparison(t *testing.T) {
	for _, test := range []struct {
		name                  string
		more                  bool
		old, new, ours, again rounds
		want                  Comparison
		text                  string
	}{
		{"more is better", true, rounds{0, 2}, rounds{0, 1}, rounds{0, 3}, nil, Comparison{1.5, false, false}, "1.50"},
		{"less is better", false, rounds{0, 2}, rounds{0, 1}, rounds{0, 3}, nil, Comparison{3, false, true}, "3.00"},
		{"round by round", true, rounds{0, 4, 1, 1}, rounds{0, 2, 2, 2}, rounds{0, 2, 2, 2}, nil,
			Comparison{1, false, false}, "1.00"},
		{"not in every round, but in the same", true, rounds{0, 1, 2, 8}, nil, rounds{0, math.NaN(), 4, 8},
			rounds{0, 1, math.NaN(), 8}, Comparison{1.5, false, false}, "1.50"},
		{"one was not measured", true, nil, rounds{0, 2}, rounds{0, 3}, nil, Comparison{1.5, false, false}, "1.50"},
		{"no second row", true, rounds{0, 100, 100}, nil, rounds{0, 90, 90}, nil, Comparison{0.9, false, true}, "0.90"},
		{"one round is noisy", true, rounds{0, 100, 100}, nil, rounds{0, 90, 90}, rounds{0, 90, 80},
			Comparison{0.9, true, false}, "~"},
		{"either way", true, rounds{0, 100, 100}, nil, rounds{0, 110, 110}, rounds{0, 110, 125},
			Comparison{1.1, true, false}, "~"},
		{"beyond it", true, rounds{0, 100, 100}, nil, rounds{0, 90, 90}, rounds{0, 92, 88},
			Comparison{0.9, false, true}, "0.90"},
		{"a win beyond it", false, rounds{0, 100, 100}, nil, rounds{0, 90, 90}, rounds{0, 92, 88},
			Comparison{0.9, false, false}, "0.90"},
		{"what gets used to the work", true, rounds{0, 100, 100}, nil, rounds{1, 90, 90}, rounds{9, 91, 90},
			Comparison{0.9, false, true}, "0.90"},
		{"nothing twice is not apart", false, rounds{0, 2, 2}, nil, rounds{0, 0, 1}, rounds{0, 0, 1},
			Comparison{0.25, false, false}, "0.25"},
		{"something beside nothing is", false, rounds{0, 2, 2}, nil, rounds{0, 0, 1}, rounds{0, 1, 1},
			Comparison{0.25, true, false}, "~"},
	} {
		unit := Unit{"x", test.more}
		r := result([]Unit{unit}, map[string]rounds{
			"old x": test.old, "new x": test.new, "ours x": test.ours, "again x": test.again})
		f, _ := r.Figure("ours", unit)
		if f.Comparison != test.want || f.Comparison.String() != test.text {
			t.Errorf("%s: got %+v, printed as %v; want %+v", test.name, f, f.Comparison, test.want)
		}
	}
}

func TestBestPeerAndHeadroom(t *testing.T) {
	r := result([]Unit{{"x/s", true}}, map[string]rounds{
		Direct + " x/s": {0, 110}, "ours x/s": {0, 75}, "slow x/s": {0, 50}, "fast x/s": {0, 100}})
	for _, name := range []string{"slow", "fast", "unmeasured"} {
		r.Proxies = append(r.Proxies, Proxy{Name: name, Peer: true})
	}
	row := r.summary(r.Proxies[3])
	if got := row[len(row)-1]; got != "fast **0.75**" {
		t.Errorf("the best peer is %q", got)
	}
	if !strings.Contains(r.String(), "BOUND BY THE ENDS: direct makes 1.10 of the best proxy") {
		t.Errorf("no headroom of 1.1 in\n%s", r)
	}
}

// words are those of a text, with a space between.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }
