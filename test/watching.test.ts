import { readFileSync } from 'node:fs';
import { parser } from '@prometheus-io/lezer-promql';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { createMeters } from '../src/metrics/meters.js';

/** What a process that has just begun tells. */
const figures = () => createMeters().registry.metrics();

const file = (name: string) => readFileSync(new URL(`../docs/${name}`, import.meta.url), 'utf8');

interface Rule {
  alert: string;
  expr: string;
  labels: { severity: string };
  annotations: Record<'summary' | 'description' | 'runbook_url', string>;
}

const rules = (parse(file('operations/alerts.yml')) as { groups: { rules: Rule[] }[] }).groups.flatMap(
  (group) => group.rules,
);

const dashboard = JSON.parse(file('operations/grafana.json')) as {
  panels: { id: number; title: string; gridPos: Record<'x' | 'y' | 'w' | 'h', number>; targets?: { expr: string }[] }[];
};

const queries = [
  ...rules.map(({ alert, expr }) => [alert, expr] as const),
  ...dashboard.panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => [title, expr] as const)),
];

/** Grafana puts a duration there; any does. */
const filled = (expr: string) => expr.replaceAll('$__rate_interval', '5m');

function namesIn(expr: string): Set<string> {
  const names = new Set<string>();
  parser.parse(filled(expr)).iterate({
    enter: ({ name, from, to }) => void (name === 'Identifier' && names.add(filled(expr).slice(from, to))),
  });
  return names;
}

test.each(queries)(
  'what "%s" asks Prometheus is well-formed, and asks for figures that there are',
  async (_name, expr) => {
    const faults: string[] = [];
    parser.parse(filled(expr)).iterate({
      enter: ({ type, from }) => void (type.isError && faults.push(`at ${from}: ${filled(expr).slice(from)}`)),
    });
    expect(faults).toEqual([]);
    const names = namesIn(expr);
    expect(names.size).toBeGreaterThan(0);
    const known = new Set(
      [...(await figures()).matchAll(/^# TYPE (\S+) (\S+)/gm)].flatMap(([, name = '', type]) =>
        type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
      ),
    );
    expect([...names].filter((name) => !known.has(name))).toEqual([]);
  },
);

test('panels of the dashboard have ids of their own and do not lie over one another', () => {
  const { panels } = dashboard;
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  const covered = panels.flatMap(({ title, gridPos: { x, y, w, h } }) =>
    panels
      .filter(
        ({ gridPos: other }) => other.x < x + w && x < other.x + other.w && other.y < y + h && y < other.y + other.h,
      )
      .filter((other) => other.title !== title)
      .map((other) => [title, other.title]),
  );
  expect(covered).toEqual([]);
});

test('every figure of ours has a panel, but for those that say what a process is', async () => {
  const shown = new Set(
    dashboard.panels.flatMap(({ targets = [] }) => targets.flatMap(({ expr }) => [...namesIn(expr)])),
  );
  const told = [...(await figures()).matchAll(/^# TYPE (latchkey_\S+) (\S+)/gm)].filter(
    ([, name = '', type]) => !shown.has(type === 'histogram' ? `${name}_bucket` : name),
  );
  expect(told.map(([, name]) => name)).toEqual(['latchkey_info']);
});

test('every alert says how grave it is, what it means, and where the operator reads on', () => {
  const guide = file('operations.md');
  const anchors = new Set(
    [...guide.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
      title
        .toLowerCase()
        .replaceAll(/[^a-z0-9 -]/g, '')
        .replaceAll(' ', '-'),
    ),
  );
  expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
  const unfit = rules.filter(({ labels, annotations: { summary, description, runbook_url: place } }) => {
    const [page, anchor = ''] = place.split('#');
    const leads = page === 'docs/operations.md' && anchors.has(anchor);
    return !leads || !['page', 'ticket'].includes(labels.severity) || summary.length < 10 || description.length < 10;
  });
  expect(unfit).toEqual([]);
});
