package daemon

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
)

// printBanner tells somebody who tries the server out what they need, on stdout
// and nowhere else: logs are kept, and passwords do not belong there. It is for a
// server whose users were made at start.
func printBanner(w io.Writer, name, base string, accounts []account, invented, page bool) {
	insecureCurl, insecureWscat := "", ""
	if invented {
		insecureCurl, insecureWscat = " -k", " -n"
	}
	socket := "ws" + strings.TrimPrefix(base, "http") + "/ws/chat"
	fmt.Fprintf(w, "%s serves %s and %s\n\n", name, base, socket)
	for _, a := range accounts {
		fmt.Fprintf(w, "  username %-6s password %s  role %s\n", a.name, a.password, a.role)
	}
	if page {
		fmt.Fprintf(w, "\nTo chat in a browser, open %s/", base)
		if invented {
			fmt.Fprint(w, " and have it trust the certificate")
		}
		fmt.Fprint(w, ".\n")
	}
	fmt.Fprintf(w, `
Log in, which keeps the token in a variable; then open a socket with it. As admin,
what you type there goes to everyone; open another one as user and see.

  TOKEN=$(curl -sS%[1]s %[3]s/login -d username=%[4]s -d password=%[5]s | grep -o 'eyJ[^"]*')
  npx -y wscat%[2]s -c %[6]s -H "Authorization: Bearer $TOKEN"

What was made at start ends with this process; %[7]s -help tells how to bring
your own users, key and certificate.

`, insecureCurl, insecureWscat, base, accounts[0].name, accounts[0].password, socket, name)
}

// baseURL is how a browser on this machine, or with -acme-domain anywhere, gets
// to a listener: by the name that was asked for, not the address it came to.
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

// scheme is the first part of the server's addresses.
func (c *config) scheme() string {
	if c.plaintext {
		return "http"
	}
	return "https"
}
