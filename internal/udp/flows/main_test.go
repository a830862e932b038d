package flows

import (
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }
