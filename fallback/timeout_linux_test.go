package fallback_test

import (
	"testing"
	"time"

	"github.com/portsplice/portsplice/fallback"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestSetDialTimeout: dials that begin later have the new bound, and connections live on.
func TestSetDialTimeout(t *testing.T) {
	engine := fallback.New(fallback.Options{DialTimeout: time.Hour})
	defer func() { rig.Check(t, engine.Close()) }()
	silent, answering := rig.Listen(t, rig.Loopback), rig.Listen(t, rig.Loopback)
	_, err := engine.Add(silent, rig.Silent(t, rig.Loopback))
	rig.Must(t, err)
	_, err = engine.Add(answering, rig.Serve(t, rig.Listen(t, rig.Loopback), rig.Echo))
	rig.Must(t, err)
	live := rig.Dial(t, "tcp", rig.Address(answering))
	rig.Exchange(t, live, []byte("hello"))
	engine.SetDialTimeout(10 * time.Millisecond)
	rig.WantReset(t, rig.Address(silent))
	rig.Exchange(t, live, []byte("hello"))
}
