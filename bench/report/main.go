package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/portsplice/portsplice/bench"
)

func main() {
	readme := flag.String("readme", "", "file whose table is to be written anew")
	flag.Parse()
	if err := run(flag.Arg(0), *readme); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(dir, readme string) error {
	if dir == "" {
		return errors.New("usage: report [-readme FILE] DIRECTORY")
	}
	r, err := bench.ReadReport(dir)
	if err != nil {
		return err
	}
	plots, err := drawPlots(dir, r.Results())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(page(r, plots)), 0o644); err != nil {
		return err
	}
	if readme == "" {
		return nil
	}
	return replaceTable(readme, summary(r, dir))
}
