// Command portsplicectl is for the people of a host: it has dockerd start portsplice, and shows what that does there.
// dockerd never starts it.
package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/portsplice/portsplice/internal/workers"
)

// version is set by the Makefile.
var version = "unknown"

func main() {
	debug.SetGCPercent(400) // most commands have printed a thousand ports before a collection pays
	c := command()
	c.SetOut(plain{os.Stdout})
	c.SetErr(plain{os.Stderr})
	if c.Execute() != nil {
		os.Exit(1)
	}
}

// extra are commands of some builds.
var extra []*cobra.Command

// asking is of a command that asks workers: it also does so where a rootless dockerd of this user has them, or with network
// only there.
func asking(network bool, c *cobra.Command) *cobra.Command {
	c.PreRunE = func(*cobra.Command, []string) error { return workers.EnterRootless(network) }
	return c
}

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
	root.AddCommand(asking(false, ps()), asking(false, trace()), check(), asking(true, showOptions()), asking(true, reload()))
	root.AddCommand(installCommand(), uninstallCommand(), asking(true, doctorCommand()), asking(false, exporterCommand()))
	root.AddCommand(extra...)
	return root
}
