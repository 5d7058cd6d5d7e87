package webtest

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "write pictures of the page into this `directory`")

// fonts sets the pictures in Inter (Debian's fonts-inter) if it is installed, because the
// default font of a bare machine is arbitrary.
const fonts = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
<include>/etc/fonts/fonts.conf</include>
<match target="pattern"><edit name="family" mode="prepend_first" binding="strong"><string>Inter</string></edit></match>
</fontconfig>
`

// picture writes what the tab shows, with at most 256 colours: a third of the bytes, and
// hardly a visible difference.
func (p *tab) picture(name string) {
	p.t.Helper()
	shot, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	full, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		p.t.Fatal(err)
	}
	count := make(map[color.Color]int)
	bounds := full.Bounds()
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			count[full.At(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(count), func(a, b color.Color) int {
		return cmp.Or(count[b]-count[a], cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	palette := few(colours)
	small := image.NewPaletted(bounds, palette)
	nearest := make(map[color.Color]uint8)
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			c := full.At(x, y)
			if _, known := nearest[c]; !known {
				nearest[c] = uint8(palette.Index(c))
			}
			small.SetColorIndex(x, y, nearest[c])
		}
	}
	f, err := os.Create(filepath.Join(*screenshots, name+".png"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(f, small); err != nil {
		p.t.Fatal(err)
	}
}

// few are colours that stand for all of these, the most frequent ones first, and as
// close to each as 256 can be.
func few(colours []color.Color) (palette color.Palette) {
	for apart := 0; ; apart++ {
		palette = nil
		for _, c := range colours {
			if len(palette) == 0 || distance(c, palette.Convert(c)) > apart {
				palette = append(palette, c)
			}
			if len(palette) > 256 {
				break
			}
		}
		if len(palette) <= 256 {
			return palette
		}
	}
}

// distance is how far apart two colours are, at most 255 a channel.
func distance(a, b color.Color) (most int) {
	ar, ag, ab, _ := a.RGBA()
	br, bg, bb, _ := b.RGBA()
	for _, d := range []int{int(ar) - int(br), int(ag) - int(bg), int(ab) - int(bb)} {
		most = max(most, d>>8, -d>>8)
	}
	return most
}

func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("without -screenshots")
	}
	if err := os.MkdirAll(*screenshots, 0o755); err != nil {
		t.Fatal(err)
	}
	desktop, phone := look{width: 1280, height: 800}, look{width: 390, height: 844, touch: true}
	dark := func(l look) look { l.dark = true; return l }
	server := serve(t)
	login := openTab(t, server.URL+"/", desktop)
	login.await("the form", `document.activeElement.id === "username"`)
	login.picture("login")
	spanish := desktop
	spanish.language = "es-ES,es"
	for name, l := range map[string]look{
		"feed-light": desktop, "feed-dark": dark(desktop),
		"feed-phone-light": phone, "feed-phone-dark": dark(phone), "feed-spanish": spanish,
	} {
		scene(t, name, l)
	}
}

// spoken is what is said in the pictures, in the language of the page.
var spoken = map[bool][]string{
	false: {
		"Good morning! The office opens at nine today, the kitchen at ten.",
		"web 4.12.0 is going out to production (3 of 12 nodes).",
		"web 4.12.0 is out on all 12 nodes, error rate unchanged.",
		"Disk on db-2 is at 81 %. I am growing the volume now, no downtime expected.\nI will write here when it is done.",
		"Done: db-2 has 400 GB more.",
		"Ana, could you announce the maintenance window for tonight?",
		"Maintenance tonight from 22:00 to 22:30: the wiki and the build farm will be away.",
	},
	true: {
		"¡Buenos días! Hoy la oficina abre a las nueve, y la cocina a las diez.",
		"web 4.12.0 sale a producción (3 de 12 nodos).",
		"web 4.12.0 ya está en los 12 nodos, sin más errores que antes.",
		"El disco de db-2 está al 81 %. Estoy ampliando el volumen, sin corte previsto.\nAviso por aquí cuando acabe.",
		"Listo: db-2 tiene 400 GB más.",
		"Ana, ¿anuncias tú el mantenimiento de esta noche?",
		"Mantenimiento esta noche de 22:00 a 22:30: no habrá wiki ni granja de compilación.",
	},
}

// scene is a day of Ana's, an admin, with a connection that breaks.
func scene(t *testing.T, name string, l look) {
	server := serve(t, "-users", usersFile(t, "ana*", "deploy-bot*", "marta*", "eva", "luis", "noor@example.com"))
	marta, bot := logIn(t, server, "marta"), logIn(t, server, "deploy-bot")
	network := startProxy(t, server.URL)
	l.forgiven = outage
	p := openTab(t, network.URL+"/", l)
	p.enter("ana", "ana")
	for _, name := range []string{"eva", "luis", "noor@example.com", "eva"} {
		openTab(t, server.URL+"/", look{}).enter(name, backwards(name))
	}
	narrow := l.width < 760
	channels := func() {
		if narrow {
			p.click("#side-open")
		}
	}
	for _, channel := range []string{"deploys", "ops"} {
		channels()
		p.write("#join-name", channel+"\r")
		p.await("the channel", `document.querySelector("#view-title").textContent === `+quote("#"+channel))
	}
	channels()
	p.click(`[data-key="all"] button`)
	say := spoken[l.language != ""]
	post(t, server, marta, "", say[0])
	post(t, server, bot, "deploys", say[1])
	post(t, server, bot, "deploys", say[2])
	post(t, server, marta, "ops", say[3])
	p.awaitMessage(say[3])
	network.cut()
	p.await("a wait", `document.querySelector("#state").dataset.state === "waiting" && /[2-9]/.test(document.querySelector("#banner-text").textContent)`)
	if name == "feed-light" {
		p.picture("reconnecting")
	}
	post(t, server, marta, "ops", say[4])
	network.mend()
	p.click("#banner-action")
	p.connected()
	p.awaitMessage(say[4])
	post(t, server, marta, "@ana", say[5])
	p.awaitMessage(say[5])
	p.write("#content", say[6]+"\r")
	p.awaitMessage(say[6])
	p.await("the list", `document.dispatchEvent(new Event("visibilitychange")) && document.querySelector('.person[data-name="eva"] .detail')?.textContent.startsWith("2 ")`)
	p.await("all read out", `document.querySelector("#feed").ariaLive === "polite"`)
	p.picture(name)
	if name == "feed-phone-light" {
		p.click("#people-open")
		p.picture("people-phone")
	}
}
