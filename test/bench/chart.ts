/** A line over seconds, with an axis of its own. */
export interface Panel {
  title: string;
  unit: string;
  points: readonly { x: number; y: number }[];
  colour: string;
}

const WIDTH = 860;
const PANEL_HEIGHT = 210;
const LEFT = 90;
const RIGHT = 30;
const HEAD = 74;
const GAP = 64;
const TICKS = 5;

/** The smallest of 1, 2, 2.5 and 5 times a power of ten that makes at most `TICKS` steps. */
function stepFor(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most / TICKS));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => most / step <= TICKS) ?? most;
}

const ticksTo = (most: number): number[] => {
  const step = stepFor(most);
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, index) => index * step);
};

const label = (value: number) => value.toLocaleString('en', { maximumFractionDigits: 2 }).replaceAll(',', ' ');

const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

const text = (x: number, y: number, content: string, more = '') =>
  `<text x="${x}" y="${y}" ${more}>${escaped(content)}</text>`;

function drawPanel(panel: Panel, top: number, xTicks: readonly number[]): string {
  const yTicks = ticksTo(Math.max(...panel.points.map(({ y }) => y), 1));
  const right = xTicks.at(-1) ?? 1;
  const high = yTicks.at(-1) ?? 1;
  const px = (x: number) => Number((LEFT + (x / right) * (WIDTH - LEFT - RIGHT)).toFixed(1));
  const py = (y: number) => Number((top + PANEL_HEIGHT - (y / high) * PANEL_HEIGHT).toFixed(1));
  const bottom = top + PANEL_HEIGHT;
  return [
    text(LEFT, top - 12, `${panel.title} [${panel.unit}]`, 'font-weight="bold"'),
    ...yTicks.map((y) => `<path d="M${LEFT} ${py(y)}H${WIDTH - RIGHT}" stroke="#ddd"/>`),
    ...yTicks.map((y) => text(LEFT - 8, py(y) + 4, label(y), 'text-anchor="end"')),
    ...xTicks.map((x) => `<path d="M${px(x)} ${bottom}v5" stroke="#444"/>`),
    ...xTicks.map((x) => text(px(x), bottom + 20, label(x), 'text-anchor="middle"')),
    `<path d="M${LEFT} ${top}V${bottom}H${WIDTH - RIGHT}" fill="none" stroke="#444"/>`,
    `<polyline fill="none" stroke="${panel.colour}" stroke-width="2" points="${panel.points.map(({ x, y }) => `${px(x)},${py(y)}`).join(' ')}"/>`,
  ].join('\n');
}

/** Draws panels that share their time axis, one below the other. */
export function drawChart(title: string, subtitle: string, panels: readonly Panel[]): string {
  const xTicks = ticksTo(Math.max(...panels.flatMap(({ points }) => points.map(({ x }) => x)), 1));
  const height = HEAD + panels.length * (PANEL_HEIGHT + GAP) + 16;
  const bodies = panels.map((panel, index) => drawPanel(panel, HEAD + 24 + index * (PANEL_HEIGHT + GAP), xTicks));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="13" fill="#222">
<rect width="${WIDTH}" height="${height}" fill="#fff"/>
${text(LEFT, 28, title, 'font-size="18" font-weight="bold"')}
${text(LEFT, 50, subtitle, 'fill="#555"')}
${bodies.join('\n')}
${text((LEFT + WIDTH - RIGHT) / 2, height - 12, 'seconds since all were due', 'text-anchor="middle"')}
</svg>
`;
}
