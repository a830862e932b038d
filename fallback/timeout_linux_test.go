package fallback_test

import (
	"testing"
	"time"

	"github.com/portsplice/portsplice/fallback"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestSetOptions: dials that begin later have the new bound, connections live on, and what is no option changes nothing.
func TestSetOptions(t *testing.T) {
	engine := fallback.New(fallback.Options{DialTimeout: time.Hour})
	defer func() { rig.Check(t, engine.Close()) }()
	silent, answering := rig.Listen(t, rig.Loopback), rig.Listen(t, rig.Loopback)
	_, err := engine.Add(silent, rig.Silent(t, rig.Loopback))
	rig.Must(t, err)
	_, err = engine.Add(answering, rig.Serve(t, rig.Listen(t, rig.Loopback), rig.Echo))
	rig.Must(t, err)
	live := rig.Dial(t, "tcp", rig.Address(answering))
	rig.Exchange(t, live, []byte("hello"))
	rig.Check(t, engine.SetOptions(fallback.Options{DialTimeout: 10 * time.Millisecond}))
	if err := engine.SetOptions(fallback.Options{ProxyProtocol: 3}); err == nil {
		t.Error("a PROXY header of version 3 is taken")
	}
	rig.WantReset(t, rig.Address(silent))
	rig.Exchange(t, live, []byte("hello"))
}
