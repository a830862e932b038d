package sctp

import (
	"slices"
	"testing"
	"time"
)

func TestAlarms(t *testing.T) {
	var rung []string
	var a alarms
	named := func(name string) *alarm { return &alarm{ring: func() { rung = append(rung, name) }} }
	expect := func(now time.Duration, want ...string) {
		t.Helper()
		rung = nil
		a.ring(now)
		if !slices.Equal(rung, want) {
			t.Errorf("at %v: %v rang; want %v", now, rung, want)
		}
	}
	early, late, moved, stopped, kept := named("early"), named("late"), named("moved"), named("stopped"), named("kept")
	a.set(late, 5)
	a.set(moved, 9)
	a.set(stopped, 2)
	a.set(early, 1)
	a.set(kept, 4)
	a.set(moved, 3)
	a.setOnce(kept, 1)
	a.stop(stopped)
	a.stop(stopped) // no harm
	if !a.any() || a.next() != 1 {
		t.Errorf("next: %v; want 1", a.next())
	}
	expect(0)
	expect(3, "early", "moved")
	a.setOnce(early, 4)
	expect(10, "kept", "early", "late")
	if a.any() {
		t.Error("an alarm is set that has rung")
	}
}
