package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/bench/internal/usage"
)

// result makes a Result of one work from the values of each proxy, round 0 first.
func result(units []Unit, values map[string]map[string][]float64) Result {
	r := Result{
		Work: Work{Name: "work/conns=1", Units: units, Protocol: tcp},
		Proxies: []Proxy{{Name: Direct}, {Name: "old", Reference: true}, {Name: "new", Reference: true},
			{Name: "ours"}, {Name: "again", Again: "ours"}},
	}
	for i := range r.Proxies {
		r.Proxies[i].Protocols, r.Proxies[i].Path = []string{tcp}, "/path"
	}
	r.Proxies = append(r.Proxies, Proxy{Name: "for something else", Protocols: []string{udp}})
	for proxy, byUnit := range values {
		for unit, rounds := range byUnit {
			for round, v := range rounds {
				r.Samples = append(r.Samples, Sample{Proxy: proxy, Round: round, Values: Values{unit: v}})
			}
		}
	}
	return r
}

func TestTable(t *testing.T) {
	r := result([]Unit{{"op/s", true}, {"us/op", false}}, map[string]map[string][]float64{
		Direct:  {"op/s": {1, 100e3, 110e3, 130e3}, usage.Others: {90, 1, 2, 3}},
		"old":   {"op/s": {9e9, 40e3, 41e3, 42e3}, "us/op": {9e9, 20, 21, 22}},
		"new":   {"op/s": {9e9, 50e3, 50e3, 40e3}, "us/op": {9e9, 24, 25, 26}},
		"ours":  {"op/s": {1, 100e3, 75e3, 60e3}, "us/op": {1, 5, 22, 23}},
		"again": {"op/s": {1, 96e3, 72e3, 60e3}, "us/op": {1, 6, 21, 24}},
	})
	want := `
work/conns=1   3 rounds   noise 9%   others took 1%..3% of the CPUs   NOISY: direct moved by 27%
  proxy   op/s ↑                        us/op ↓
  direct  110.0k [100.0k..130.0k] 2.20x -
  old     41.0k [40.0k..42.0k] 0.82x    21.0 [20.0..22.0] ref
  new     50.0k [40.0k..50.0k] ref      25.0 [24.0..26.0] 1.19x
  ours    75.0k [60.0k..100.0k] 1.50x   22.0 [5.00..23.0] ~
  again   72.0k [60.0k..96.0k] 1.50x   21.0 [6.00..24.0] ~
`
	if diff := cmp.Diff(fields(want), fields(r.String())); diff != "" {
		t.Error(diff)
	}
}

func TestTableWithoutReference(t *testing.T) {
	r := result([]Unit{{"op/s", true}}, map[string]map[string][]float64{
		Direct: {"op/s": {1, 10, 10}},
		"ours": {"op/s": {1, 5, 5}},
	})
	want := `
work/conns=1   2 rounds
  proxy   op/s ↑
  direct  10.0 [10.0..10.0]
  old     -
  new     -
  ours    5.00 [5.00..5.00]
  again   -
`
	if diff := cmp.Diff(fields(want), fields(r.String())); diff != "" {
		t.Error(diff)
	}
}

// TestTableOfARowWithABase: a row that has one is compared with it, and not with the reference that it is worse than.
func TestTableOfARowWithABase(t *testing.T) {
	r := result([]Unit{{"op/s", true}}, map[string]map[string][]float64{
		"old":    {"op/s": {1, 100, 100}},
		"ours":   {"op/s": {1, 200, 200}},
		"header": {"op/s": {1, 190, 190}},
	})
	r.Proxies = append(r.Proxies, Proxy{Name: "header", Base: "ours", Protocols: []string{tcp}, Path: "/path"})
	want := `
work/conns=1   2 rounds
  proxy   op/s ↑
  direct  -
  old     100 [100..100] ref
  new     -
  ours    200 [200..200] 2.00x
  again   -
  header  190 [190..190] 0.95x
`
	if diff := cmp.Diff(fields(want), fields(r.String())); diff != "" {
		t.Error(diff)
	}
}

func TestTableSaysWhyThereAreNoFigures(t *testing.T) {
	r := result([]Unit{{"op/s", true}}, map[string]map[string][]float64{
		Direct: {"op/s": {1, 10, 10}},
		"old":  {"op/s": {1, 5, 5}},
	})
	r.Proxies[2].Path = ""
	r.Proxies[3].Cannot = map[string]string{"work/conns=1": "loses bytes"}
	r.Samples = append(r.Samples, Sample{Proxy: "old", Round: 2, Failed: "broken"})
	want := `
work/conns=1   2 rounds
  proxy   op/s ↑
  direct  10.0 [10.0..10.0] 2.00x
  old     failed
  new     not installed
  ours    loses bytes
  again   -
`
	if diff := cmp.Diff(fields(want), fields(r.String())); diff != "" {
		t.Error(diff)
	}
}

// What two rows of one program let chance do is neither better nor worse.
func TestWithinTheNoise(t *testing.T) {
	for _, test := range []struct {
		name        string
		more        bool
		old, ours   []float64 // by round, the first of which is dropped
		again       []float64
		want        string
		alike, lost bool
	}{
		{"no second row", true, []float64{0, 100, 100}, []float64{0, 90, 90}, nil, "0.90", false, true},
		{"one round is noisy", true, []float64{0, 100, 100}, []float64{0, 90, 90}, []float64{0, 90, 80}, "~", true, false},
		{"either way", true, []float64{0, 100, 100}, []float64{0, 110, 110}, []float64{0, 110, 125}, "~", true, false},
		{"beyond it", true, []float64{0, 100, 100}, []float64{0, 90, 90}, []float64{0, 92, 88}, "0.90", false, true},
		{"a win beyond it", false, []float64{0, 100, 100}, []float64{0, 90, 90}, []float64{0, 92, 88}, "0.90", false, false},
		{"what gets used to the work", true, []float64{0, 100, 100}, []float64{1, 90, 90}, []float64{9, 91, 90}, "0.90", false, true},
		{"nothing twice is not apart", false, []float64{0, 2, 2}, []float64{0, 0, 1}, []float64{0, 0, 1}, "0.25", false, false},
		{"something beside nothing is", false, []float64{0, 2, 2}, []float64{0, 0, 1}, []float64{0, 1, 1}, "~", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			unit := Unit{"x", test.more}
			r := result([]Unit{unit}, map[string]map[string][]float64{
				"old": {"x": test.old}, "ours": {"x": test.ours}, "again": {"x": test.again}})
			f, _ := r.Figure("ours", unit)
			if got := f.Comparison.String(); got != test.want || f.Alike != test.alike || f.Worse != test.lost {
				t.Errorf("got %q, %+v", got, f)
			}
		})
	}
}

func TestRatioIsToTheReferenceThatLeavesTheWorseOne(t *testing.T) {
	for _, test := range []struct {
		name           string
		more           bool
		old, new, ours []float64 // by round, the first of which is dropped
		want           float64
	}{
		{"more is better", true, []float64{0, 2}, []float64{0, 1}, []float64{0, 3}, 1.5},
		{"less is better", false, []float64{0, 2}, []float64{0, 1}, []float64{0, 3}, 3},
		{"round by round", true, []float64{0, 4, 1, 1}, []float64{0, 2, 2, 2}, []float64{0, 2, 2, 2}, 1},
		{"one was not measured", true, nil, []float64{0, 2}, []float64{0, 3}, 1.5},
	} {
		t.Run(test.name, func(t *testing.T) {
			unit := Unit{"x", test.more}
			r := result([]Unit{unit}, map[string]map[string][]float64{
				"old": {"x": test.old}, "new": {"x": test.new}, "ours": {"x": test.ours}})
			if f, _ := r.Figure("ours", unit); f.Ratio != test.want {
				t.Errorf("got %v, want %v", f.Ratio, test.want)
			}
		})
	}
}

func TestBestPeerAndHeadroom(t *testing.T) {
	r := result([]Unit{{"x/s", true}}, map[string]map[string][]float64{
		Direct: {"x/s": {0, 110}}, "ours": {"x/s": {0, 75}}, "slow": {"x/s": {0, 50}}, "fast": {"x/s": {0, 100}}})
	for _, name := range []string{"slow", "fast", "unmeasured"} {
		r.Proxies = append(r.Proxies, Proxy{Name: name, Peer: true})
	}
	name, f := r.BestPeer("ours")
	if name != "fast" || f.Ratio != 0.75 || !f.Worse {
		t.Errorf("the best peer is %q, %+v", name, f)
	}
	if h := r.Headroom(); h != 1.1 || !strings.Contains(r.String(), "BOUND BY THE ENDS: direct makes 1.10") {
		t.Errorf("headroom %v of\n%s", h, r)
	}
}

// fields are the words of a table, line by line.
func fields(table string) [][]string {
	var lines [][]string
	for line := range strings.Lines(table) {
		lines = append(lines, strings.Fields(line))
	}
	return lines
}
