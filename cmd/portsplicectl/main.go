// Command portsplicectl is for the people of a host: it has dockerd start portsplice, and shows what that does there.
// dockerd never starts it.
package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "unknown"

func main() {
	debug.SetGCPercent(400) // most commands have printed a thousand ports before a collection pays
	if command().Execute() != nil {
		os.Exit(1)
	}
}

// extra are commands of some builds.
var extra []*cobra.Command

// command is the whole of the command line.
func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "portsplicectl",
		Short:         "Has dockerd start portsplice, and shows what that does on this host",
		Version:       version + ", " + runtime.Version(),
		SilenceUsage:  true,
		SilenceErrors: false,
		// Packages bring the completions; the command is for others.
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.AddCommand(ps(), trace(), check(), showOptions(), reload(), installCommand(), uninstallCommand(), doctorCommand())
	root.AddCommand(exporterCommand())
	root.AddCommand(extra...)
	return root
}
