package daemon

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
)

// printBanner prints what a person needs who tries the server out: addresses, passwords
// and commands to copy. It goes to stdout only, since logs are kept and must not contain
// passwords. It is for a server whose users were made at start.
func printBanner(w io.Writer, name, base string, accounts []account, selfSigned, page bool) {
	insecureCurl, insecureWscat := "", ""
	if selfSigned {
		insecureCurl, insecureWscat = " -k", " -n"
	}
	socket := "ws" + strings.TrimPrefix(base, "http") + "/ws/chat"
	fmt.Fprintf(w, "%s serves %s and %s\n\n", name, base, socket)
	for _, a := range accounts {
		fmt.Fprintf(w, "  username %-6s password %s  role %s\n", a.name, a.password, a.role)
	}
	if page {
		fmt.Fprintf(w, "\nTo chat in a browser, open %s/", base)
		if selfSigned {
			fmt.Fprint(w, " and accept the certificate")
		}
		fmt.Fprint(w, ".\n")
	}
	fmt.Fprintf(w, `
Log in, which stores the token in a variable, then open a socket with it. What you
type as admin is sent to everyone. Log in as user in a second shell to see it arrive.

  TOKEN=$(curl -sS%[1]s %[3]s/login -d username=%[4]s -d password=%[5]s | grep -o 'eyJ[^"]*')
  npx -y wscat%[2]s -c %[6]s -H "Authorization: Bearer $TOKEN"

These users, their passwords and tokens end with this process. %[7]s -help lists
the flags for your own users, key and certificate.

`, insecureCurl, insecureWscat, base, accounts[0].name, accounts[0].password, socket, name)
}

// baseURL returns the URL by which a browser on this machine reaches a listener; with
// -acme-domain, a browser anywhere. It has the name from -addr rather than the bound
// address.
func baseURL(cfg *config, bound net.Addr) string {
	host, _, _ := net.SplitHostPort(cfg.addr)
	_, port, _ := net.SplitHostPort(bound.String())
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	if len(cfg.acmeDomains) > 0 {
		host = cfg.acmeDomains[0]
	}
	u := url.URL{Scheme: cfg.scheme(), Host: net.JoinHostPort(host, port)}
	if port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http" {
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	return u.String()
}

// scheme returns the scheme of the server's URLs.
func (c *config) scheme() string {
	if c.plaintext {
		return "http"
	}
	return "https"
}
