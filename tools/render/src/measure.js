// Reads from the drawn page what a picture cannot tell a program: texts, and texts that do not fit.

/** Rounding of fonts; less than this is not seen. */
const TOLERANCE = 1;
/** Letters do not reach the edges of their line: this share of air, above and below, may be cut. */
const AIR = 0.12;

/** Texts that do not fit their box. What scrolling would show is told apart. */
function cutsOf(panel) {
  const cuts = [];
  const walker = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.textContent.trim();
    const parent = node.parentElement;
    if (!text || !parent || getComputedStyle(parent).visibility === 'hidden' || parent.closest('style, script, title, .sr-only')) {
      continue;
    }
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    if (box.width === 0 || box.height === 0) {
      continue;
    }
    for (let element = parent; element; element = element.parentElement) {
      const style = getComputedStyle(element);
      const clips = element === panel || style.overflowX !== 'visible' || style.overflowY !== 'visible';
      if (clips) {
        const frame = element.getBoundingClientRect();
        const across = Math.max(box.right - frame.right, frame.left - box.left);
        const down = Math.max(box.bottom - frame.bottom, frame.top - box.top);
        if (across > TOLERANCE || down > TOLERANCE + box.height * AIR) {
          const scrolled = [style.overflowX, style.overflowY].some((value) => value === 'auto' || value === 'scroll');
          cuts.push({ text: text.slice(0, 80), pixels: Math.round(Math.max(across, down)), direction: across > down ? 'across' : 'down', scrolled });
          break;
        }
      }
      if (element === panel) {
        break;
      }
    }
  }
  return cuts;
}

function textsOf(panel) {
  const content = panel.querySelector('[data-testid$="content"]') ?? panel;
  const walker = document.createTreeWalker(content, NodeFilter.SHOW_TEXT);
  const lines = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.parentElement.closest('style, script, title, .sr-only') && node.textContent.trim()) {
      lines.push(node.textContent.trim());
    }
  }
  return lines;
}

/** Per panel id: `box` in pixels of the picture, `texts` in the order of the page, `overflow`, `links`, `noData`. */
export function measure() {
  const measured = {};
  for (const panel of document.querySelectorAll('[data-panel]')) {
    const texts = textsOf(panel);
    const { x, y, width, height } = panel.getBoundingClientRect();
    measured[panel.dataset.panel] = {
      box: { x, y, width, height },
      texts,
      overflow: cutsOf(panel),
      links: [...new Set([...panel.querySelectorAll('a[href]')].map((link) => link.getAttribute('href')))],
      noData: panel.querySelector('[data-no-data]') !== null || texts.includes('No data'),
    };
  }
  return measured;
}
