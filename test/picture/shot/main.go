// Command shot takes the pictures of the README: a page of `shunt trace -o html`,
// in light and dark, as WebP.
//
//	shot PAGE FRAGMENT LIGHT.webp DARK.webp
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// The pictures are twice as fine as they are shown.
const width, height, scale, quality = 1280, 868, 2, 64

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: shot PAGE FRAGMENT LIGHT.webp DARK.webp")
		os.Exit(2)
	}
	if err := shoot(os.Args[1], os.Args[2], map[string]string{"light": os.Args[3], "dark": os.Args[4]}); err != nil {
		fmt.Fprintln(os.Stderr, "shot:", err)
		os.Exit(1)
	}
}

// shoot opens a page and writes a picture for each colour scheme.
func shoot(file, fragment string, pictures map[string]string) error {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(os.Getenv("CHROMIUM")), chromedp.NoSandbox)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	ctx, cancel := chromedp.NewContext(allocator)
	defer cancel()
	err := chromedp.Do(ctx, chromedp.EmulateViewport(width, height, chromedp.EmulateScale(scale)),
		chromedp.Navigate("file://"+file+fragment), chromedp.WaitVisible(chromedp.CSS(`#main[aria-busy=false]`)))
	if err != nil {
		return fmt.Errorf("open the page: %w", err)
	}
	for scheme, name := range pictures {
		media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}}
		if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); err != nil {
			return fmt.Errorf("choose the colours: %w", err)
		}
		shot := page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatWebp, Quality: new(int64(quality))}
		taken, err := chromedp.Call(ctx, page.CaptureScreenshot, shot)
		if err != nil {
			return fmt.Errorf("take a picture: %w", err)
		}
		if err := os.WriteFile(name, taken.Data, 0o644); err != nil { //nolint:gosec // a picture that everybody may see
			return fmt.Errorf("write a picture: %w", err)
		}
	}
	return nil
}
