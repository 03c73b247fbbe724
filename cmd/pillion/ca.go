package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pillion/proxy"
)

const caUsage = `Print the certificate of our CA, and where clients find it.

Usage:
    pillion ca [--pem]

    --pem  print the certificate alone, to pipe it somewhere

Example:
    pillion ca --pem >pillion-ca.crt
`

func (a *app) caCommand() *cobra.Command {
	var onlyPEM bool
	cmd := &cobra.Command{
		Use: "ca", Short: "Print our CA and where clients find it", Long: caUsage, Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return a.printCA(onlyPEM) },
	}
	cmd.Flags().BoolVar(&onlyPEM, "pem", false, "")
	return cmd
}

func (a *app) printCA(onlyPEM bool) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	data, cert, err := readCA(c.Publish)
	if err != nil {
		return err
	}
	if onlyPEM {
		_, err := a.stdout.Write(data)
		return err
	}
	fmt.Fprintf(a.stdout, "name:        %s\n", cert.Subject.CommonName)
	fmt.Fprintf(a.stdout, "expires:     %s\n", cert.NotAfter.UTC().Format(time.RFC3339))
	fmt.Fprintf(a.stdout, "fingerprint: SHA256 %s\n", fingerprintOf(cert))
	fmt.Fprintf(a.stdout, "certificate: %s\n", filepath.Join(c.Publish, "ca.crt"))
	fmt.Fprintf(a.stdout, "bundle:      %s (the system's roots and ours)\n", filepath.Join(c.Publish, "ca-bundle.crt"))
	fmt.Fprintf(a.stdout, "truststore:  %s (PKCS#12 for Java, password %s)\n", filepath.Join(c.Publish, "truststore.p12"), proxy.TruststorePassword)
	_, err = a.stdout.Write(data)
	return err
}

// readCA reads our certificate from the published folder.
func readCA(publish string) ([]byte, *x509.Certificate, error) {
	file := filepath.Join(publish, "ca.crt")
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("there is no CA in %s yet: pillion run makes it", publish)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %s", file, fileProblem(err))
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, nil, fmt.Errorf("%s is no certificate: delete it, and pillion run writes it again", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is no certificate: delete it, and pillion run writes it again", file)
	}
	return data, cert, nil
}

func fingerprintOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return strings.ReplaceAll(strings.TrimSpace(fmt.Sprintf("% X", sum[:])), " ", ":")
}
