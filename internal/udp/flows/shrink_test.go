package flows

import (
	"runtime"
	"testing"
	"time"
)

// heapInUse is how many bytes are in use.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // what the first has found to be finished
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// When flows have gone their memory is given back, and the table knows those that are left. With none left it has the
// memory of no more than a small table.
func TestTableGivesMemoryBack(t *testing.T) {
	const most, left = 20_000, 100
	table := New[int, *testFlow]()
	before := heapInUse()
	for round := range 3 {
		for i := table.Len(); i < most; i++ {
			f := &testFlow{Tracking[int]{Key: i}}
			table.Add(f, time.Duration(i))
			if i%2 == 0 {
				table.Answer(f)
			}
		}
		full := heapInUse() - before
		for table.Len() > left {
			table.Remove(table.Find(table.Len() - 1))
		}
		if kept := heapInUse() - before; kept > full/20 {
			t.Errorf("round %d: %d bytes of %d are kept for %d flows of %d", round, kept, full, left, most)
		}
		for i := range left {
			if f := table.Find(i); f == nil || f.Key != i {
				t.Fatalf("round %d: flow %d is %v", round, i, f)
			}
		}
	}
	for i := 1; i < left; i += 2 {
		if f := table.Evict(time.Hour); f == nil || f.Key != i {
			t.Fatalf("evicted %v, want %d", f, i)
		}
	}
	if idle := table.Expire(left / 2); len(idle) != left/4+1 || table.Len() != left/4-1 {
		t.Errorf("%d have expired, %d are left", len(idle), table.Len())
	}
	runtime.KeepAlive(&table)
}

// A table that changes between many flows and few copies them seldom: a flow that goes costs no allocation by itself.
func TestShrinkingIsRare(t *testing.T) {
	const few = smallTable / shrinkPart
	table := New[int, *testFlow]()
	all := make([]*testFlow, 4*smallTable)
	for i := range all {
		all[i] = &testFlow{Tracking[int]{Key: i}}
		table.Add(all[i], 0)
	}
	copies, peak := 0, table.peak
	for i := len(all) - 1; i >= 0; i-- {
		if table.Remove(all[i]); table.peak != peak {
			copies, peak = copies+1, table.peak
		}
	}
	if copies != 1 || table.peak > 4*few {
		t.Errorf("%d copies, the last of %d flows; want one", copies, table.peak)
	}
}
