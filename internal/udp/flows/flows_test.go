package flows

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

type (
	testFlow  struct{ Tracking[int] }
	testTable = Table[int, *testFlow]
)

// entry is a flow in the words of TestEvict.
type entry struct {
	name     string
	seen     time.Duration
	answered bool
}

func TestEvict(t *testing.T) {
	const now = time.Minute
	idle, idler, busy, busier := now-2*Grace, now-3*Grace, now-Grace/2, now-Grace/4
	for _, c := range []struct {
		name    string
		entries []entry
		want    string // names in the order of eviction
	}{
		{"empty", nil, ""},
		{"one-sided, idle longest first", []entry{{"a", idle, false}, {"b", idler, false}, {"c", busy, false}}, "bac"},
		{"answered, idle longest first", []entry{{"a", idle, true}, {"b", idler, true}, {"c", busy, true}}, "bac"},
		{"one-sided before answered", []entry{{"a", idler, true}, {"b", idle, false}}, "ba"},
		{"idle and answered before busy and one-sided", []entry{{"a", idle, true}, {"b", busy, false}}, "ab"},
		{"all busy: one-sided before answered", []entry{{"a", busy, true}, {"b", busier, false}}, "ba"},
		{"all busy: of those that are more", []entry{{"a", busy, true}, {"b", busier, true}, {"c", busy, false}}, "acb"},
		{"the same the other way", []entry{{"a", busy, false}, {"b", busier, false}, {"c", busy, true}}, "abc"},
		{"at the Grace exactly", []entry{{"a", now - Grace, true}, {"b", now - Grace + 1, false}}, "ab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := New[int, *testFlow]()
			names := map[*testFlow]string{}
			for i, e := range c.entries {
				f := &testFlow{Tracking[int]{Key: i}}
				names[f] = e.name
				table.Add(f, 0)
				f.Touch(e.seen)
				if e.answered {
					table.Answer(f)
				}
			}
			got := ""
			for f := table.Evict(now); f != nil; f = table.Evict(now) {
				got += names[f]
			}
			if got != c.want || table.Len() != 0 {
				t.Errorf("evicted %q, %d left, want %q and none", got, table.Len(), c.want)
			}
		})
	}
}

// model is the table in its plainest form: a list, searched from end to end.
type model []*testFlow

func (m *model) remove(f *testFlow) {
	*m = slices.DeleteFunc(*m, func(g *testFlow) bool { return g == f })
}

// victim is whom evict must choose, by the rule as evict's comment has it.
func (m model) victim(now time.Duration) *testFlow {
	answered := 0
	for _, f := range m {
		if f.answered {
			answered++
		}
	}
	rank := func(f *testFlow) int {
		idle, minority := now-seenOf(f) >= Grace, f.answered == (2*answered <= len(m))
		switch {
		case idle && !f.answered:
			return 0
		case idle:
			return 1
		case !minority:
			return 2
		default:
			return 3
		}
	}
	if len(m) == 0 {
		return nil
	}
	return slices.MinFunc(m, func(a, b *testFlow) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return cmp.Compare(seenOf(a), seenOf(b))
	})
}

// However many clients come that nobody answers, half of the table stays with the busy flows that are answered. The
// flood has the other half, so that of clients that come in a burst none evicts another.
func TestFloodTakesHalfOfTheTable(t *testing.T) {
	const limit, flood = 100, 10_000
	table, now := New[int, *testFlow](), time.Minute
	answered := make([]*testFlow, limit)
	for i := range answered {
		answered[i] = &testFlow{Tracking[int]{Key: i}}
		table.Add(answered[i], now)
		table.Answer(answered[i])
	}
	for i := range flood {
		now += Grace / (2 * limit)
		answered[i%limit].Touch(now) // so that each is seen twice in the Grace
		if victim := table.Evict(now); i < limit/2 && !victim.answered {
			t.Fatalf("client %d of the flood evicted client %d of the same", i, victim.Key-limit)
		}
		table.Add(&testFlow{Tracking[int]{Key: limit + i}}, now)
		if len(table.twoSided) < limit/2 {
			t.Fatalf("after %d of the flood %d answered flows are left of %d", i+1, len(table.twoSided), limit)
		}
	}
}

func seenOf(f *testFlow) time.Duration { return time.Duration(f.seen.Load()) }

// Random schedules run against the table and the model. The clock moves with each step, so that no two flows are
// seen at the same time and the order is never open.
func TestTableAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { runSchedule(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func runSchedule(t *testing.T, random *rand.Rand) {
	table, now := New[int, *testFlow](), time.Duration(0)
	var m model
	for step := range 2000 {
		now += 1 + time.Duration(random.Int64N(int64(Grace/20)))
		pick := func() *testFlow { return m[random.IntN(len(m))] }
		switch action := random.IntN(12); {
		case len(m) == 0 || action < 4:
			f := &testFlow{Tracking[int]{Key: step}}
			table.Add(f, now)
			m = append(m, f)
		case action < 8:
			pick().Touch(now)
		case action < 9:
			f := pick()
			f.Touch(now)
			table.Answer(f)
		case action < 10:
			want := m.victim(now)
			if got := table.Evict(now); got != want {
				t.Fatalf("step %d: evicted %v, want %v", step, got.Key, want.Key)
			}
			m.remove(want)
		case action < 11:
			f := pick()
			if !table.Remove(f) || table.Remove(f) {
				t.Fatalf("step %d: remove does not tell what was there", step)
			}
			table.Answer(f) // comes too late, and must not bring it back
			m.remove(f)
		default:
			checkExpiry(t, &table, &m, now-time.Duration(random.Int64N(int64(3*Grace))))
		}
		checkSame(t, &table, m)
	}
	if drained := table.Drain(); len(drained) != len(m) || table.Len() != 0 {
		t.Errorf("drained %d of %d, %d left", len(drained), len(m), table.Len())
	}
}

func checkExpiry(t *testing.T, table *testTable, m *model, before time.Duration) {
	t.Helper()
	gone := table.Expire(before)
	for _, f := range gone {
		if seenOf(f) > before {
			t.Fatalf("expired %v seen at %v, after %v", f.Key, seenOf(f), before)
		}
		m.remove(f)
	}
	for _, f := range *m {
		if seenOf(f) <= before {
			t.Fatalf("kept %v seen at %v, not after %v", f.Key, seenOf(f), before)
		}
	}
}

func checkSame(t *testing.T, table *testTable, m model) {
	t.Helper()
	if table.Len() != len(m) || len(table.oneSided)+len(table.twoSided) != len(m) {
		t.Fatalf("%d flows, %d one-sided, %d two-sided, want %d in all",
			table.Len(), len(table.oneSided), len(table.twoSided), len(m))
	}
	for _, f := range m {
		if table.Find(f.Key) != f {
			t.Fatalf("%v is not found", f.Key)
		}
	}
	seen, some := table.oldest()
	if some != (len(m) > 0) {
		t.Fatalf("oldest found: %v, with %d flows", some, len(m))
	}
	if some {
		want := slices.MinFunc(m, func(a, b *testFlow) int { return cmp.Compare(seenOf(a), seenOf(b)) })
		if seen != seenOf(want) {
			t.Fatalf("oldest seen at %v, want %v", seen, seenOf(want))
		}
	}
}
