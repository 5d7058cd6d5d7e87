package webtest

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "write pictures of the page into this `directory`")

// fonts has the pictures set in Inter (Debian's fonts-inter) where that is installed:
// the font that a bare machine takes is nobody's choice.
const fonts = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
<include>/etc/fonts/fonts.conf</include>
<match target="pattern"><edit name="family" mode="prepend_first" binding="strong"><string>Inter</string></edit></match>
</fontconfig>
`

// picture writes what the tab shows.
func (p *tab) picture(name string) {
	p.t.Helper()
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("without -screenshots")
	}
	server := serve(t, "-users", usersFile(t, "ana*", "deploy-bot*", "marta*", "eva", "luis", "noor@example.com"), "-token-ttl", "1h")
	marta, bot := logIn(t, server, "marta"), logIn(t, server, "deploy-bot")
	network := startProxy(t, server.URL)

	var tabs []*tab
	for name, l := range map[string]look{
		"login-light": {}, "login-dark": {dark: true}, "login-phone": {width: 390, height: 844, touch: true},
	} {
		p := openTab(t, server.URL+"/", l)
		p.await("the form", `document.activeElement.id === "username"`)
		p.picture(name)
	}
	for _, l := range []look{{}, {dark: true}, {width: 390, height: 844, touch: true}, {width: 390, height: 844, touch: true, dark: true}, {language: "es-ES,es"}, {width: 900, height: 700}} {
		l.forgiven = outage
		p := openTab(t, network.URL+"/", l)
		p.enter("ana", "ana")
		tabs = append(tabs, p)
	}
	for _, name := range []string{"eva", "luis", "noor@example.com"} {
		openTab(t, server.URL+"/", look{}).enter(name, backwards(name))
	}
	for _, p := range tabs {
		for _, channel := range []string{"deploys", "ops"} {
			if eval[bool](p, `innerWidth < 760`) {
				p.click("#side-open")
			}
			p.write("#join-name", channel+"\r")
			p.await("the channel", `document.querySelector("#view-title").textContent === `+quote("#"+channel))
		}
		if eval[bool](p, `innerWidth < 760`) {
			p.click("#side-open")
		}
		p.click(`[data-key="all"] button`)
	}
	post(t, server, marta, "", "Good morning! The office opens at nine today, the kitchen at ten.")
	post(t, server, bot, "deploys", "web 4.12.0 is going out to production (3 of 12 nodes).")
	post(t, server, bot, "deploys", "web 4.12.0 is out on all 12 nodes, error rate unchanged.")
	post(t, server, marta, "ops", "Disk on db-2 is at 81 %. I am growing the volume now, no downtime expected.\nI will write here when it is done.")
	for _, p := range tabs {
		p.awaitMessage("web 4.12.0 is out on all 12 nodes, error rate unchanged.")
	}
	network.cut()
	for _, p := range tabs {
		p.await("the loss", `document.querySelector("#state").dataset.state !== "open"`)
	}
	tabs[0].await("a wait", `document.querySelector("#state").dataset.state === "waiting"`)
	tabs[0].picture("reconnecting-light")
	post(t, server, marta, "ops", "Done: db-2 has 400 GB more.")
	network.mend()
	for _, p := range tabs {
		p.connected()
		p.awaitMessage("Done: db-2 has 400 GB more.")
	}
	post(t, server, marta, "@ana", "Ana, could you announce the maintenance window for tonight?")
	post(t, server, marta, "", "مرحبا بالجميع، أهلا بفريق الرياض")
	for i, p := range tabs {
		p.awaitMessage("مرحبا بالجميع، أهلا بفريق الرياض")
		p.picture([]string{"admin-light", "admin-dark", "phone-light", "phone-dark", "spanish", "narrow"}[i])
	}
	tabs[2].click("#side-open")
	tabs[2].picture("phone-channels")
	tabs[2].keys("\x1b")
	tabs[2].click("#people-open")
	tabs[2].picture("phone-people")
	tabs[0].click(`.person[data-name="eva"] .cut`)
	tabs[0].picture("dialog")
}
