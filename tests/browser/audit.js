// Run inside the page: contrast (WCAG 2.2, 1.4.3 and 1.4.11), headings, ids, targets' sizes, and nothing wider than the screen.
function audit() {
  const found = [];
  const parse = (text) => {
    const numbers = text.match(/[\d.]+/g).map(Number);
    return { r: numbers[0], g: numbers[1], b: numbers[2], a: numbers[3] === undefined ? 1 : numbers[3] };
  };
  const over = (top, under) => {
    const mix = (channel) => top[channel] * top.a + under[channel] * (1 - top.a);
    return { r: mix('r'), g: mix('g'), b: mix('b'), a: 1 };
  };
  const groundOf = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour.a === 1) break;
    }
    return layers.reduceRight((under, top) => over(top, under), { r: 255, g: 255, b: 255, a: 1 });
  };
  const luminance = ({ r, g, b }) => {
    const linear = (value) => (value <= 0.03928 * 255 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const contrast = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const isSeen = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) && !element.closest('.unseen, .skip');
  const show = (element) => `<${element.tagName.toLowerCase()} class="${element.className}"> "${(element.innerText || '').slice(0, 40)}"`;

  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const judged = new Set();
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || judged.has(element) || element.closest('script, noscript, svg') || !isSeen(element)) continue;
    judged.add(element);
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ground = groundOf(element);
    const ratio = contrast(over(parse(style.color), ground), ground);
    if (ratio < (isLarge ? 3 : 4.5)) found.push(`contrast ${ratio.toFixed(2)}: ${show(element)}`);
  }
  for (const input of document.querySelectorAll('input, select')) {
    if (isSeen(input) && contrast(parse(getComputedStyle(input).borderTopColor), groundOf(input.parentElement)) < 3) found.push(`border of ${show(input)} ${input.name}`);
  }
  for (const fill of document.querySelectorAll('.fill')) {
    if (isSeen(fill) && contrast(parse(getComputedStyle(fill).backgroundColor), groundOf(fill.parentElement)) < 3) found.push(`bar against its ground: ${show(fill)}`);
  }
  for (const control of document.querySelectorAll('button, input, select')) {
    const box = control.getBoundingClientRect();
    if (isSeen(control) && (box.width < 24 || box.height < 24) && control.type !== 'radio') found.push(`too small to hit: ${show(control)}`);
  }
  const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
  ids.filter((id, i) => ids.indexOf(id) !== i).forEach((id) => found.push(`id twice: ${id}`));
  for (const element of document.querySelectorAll('[aria-labelledby], [aria-describedby]')) {
    for (const id of `${element.getAttribute('aria-labelledby') || ''} ${element.getAttribute('aria-describedby') || ''}`.trim().split(/\s+/)) {
      if (!document.getElementById(id)) found.push(`no element ${id}, which names ${show(element)}`);
    }
  }
  let level = 0;
  for (const heading of [...document.querySelectorAll('h1, h2, h3, h4')].filter((h) => isSeen(h) && !h.closest('dialog'))) {
    const own = Number(heading.tagName[1]);
    if (own > level + 1) found.push(`heading after level ${level}: ${show(heading)}`);
    level = own;
  }
  if (document.querySelectorAll('h1').length !== 1 || document.querySelectorAll('main').length !== 1) found.push('not one h1 and one main');
  if (!document.documentElement.lang || !document.title) found.push('no language or title');
  if (document.querySelector('[style*=":"]:not(.fill)') || document.querySelector('script:not([src]), style')) found.push('inline script or style');
  for (const dialog of document.querySelectorAll('dialog')) {
    if (dialog.scrollWidth > dialog.clientWidth) found.push(`a dialog wider than the screen: ${show(dialog)}`);
  }
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) {
    const wide = [...document.querySelectorAll('body *')].find((element) => element.getBoundingClientRect().right > clientWidth + 1 && !element.closest('.unseen, .skip, .scroll'));
    found.push(`wider than the screen (${scrollWidth} > ${clientWidth}): ${wide ? show(wide) : '?'}`);
  }
  return found;
}
