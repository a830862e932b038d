package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/portsplice/portsplice/internal/doctor"
)

// doctorCommand is the command that finds out what keeps portsplice from doing what it should.
func doctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong on this host, and what to do about it",
		Long: `Say what dockerd starts for the ports that it publishes, what serves each of those that are,
what the kernel has, which limits are near, and what to do about it. It changes
nothing. The exit status is 1 if something is wrong; a note is worth knowing and no
fault. It sees most as the user that dockerd has, so mostly as root.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			findings := doctor.Examine(c.Context(), version)
			write := report
			if asJSON {
				write = func(w io.Writer, all []doctor.Finding) error { return json.NewEncoder(w).Encode(all) }
			}
			if err := write(c.OutOrStdout(), findings); err != nil {
				return err
			}
			wrong := 0
			for _, f := range findings {
				if f.State == doctor.Wrong {
					wrong++
				}
			}
			if wrong > 0 {
				return fmt.Errorf("wrong: %d of %d findings", wrong, len(findings))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as a list")
	return c
}

// report prints a line for each finding, and below it what to do.
func report(w io.Writer, findings []doctor.Finding) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", strings.ToUpper(string(f.State)), f.About, f.Says) // Flush tells of errors
		if f.Do != "" {
			_, _ = fmt.Fprintf(t, "\t\t-> %s\n", f.Do)
		}
	}
	return t.Flush()
}
