// Command portsplicectl is for the people of a host: it shows what portsplice does there. dockerd never starts it.
package main

import (
	"os"

	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "unknown"

func main() {
	root := &cobra.Command{
		Use:           "portsplicectl",
		Short:         "Shows what portsplice does on this host",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: false,
	}
	root.AddCommand(ps(), check(), showOptions(), reload())
	if root.Execute() != nil {
		os.Exit(1)
	}
}
