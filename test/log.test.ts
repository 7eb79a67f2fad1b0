import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createLog, type LogFields } from '../src/log.js';

function lineOf(write: (log: ReturnType<typeof createLog>) => void): Record<string, unknown> {
  const lines: string[] = [];
  write(createLog('debug', { write: (line) => void lines.push(line) }));
  expect(lines).toHaveLength(1);
  expect(lines[0]?.trimEnd()).not.toContain('\n');
  return JSON.parse(lines[0] ?? '') as Record<string, unknown>;
}

test.each(['debug', 'info', 'warn', 'error'] as const)(
  'a line of level %s has the listed fields and no others',
  (level) => {
    const fields = {
      grantId: 'g',
      count: 3,
      token: 'ZCANARY',
      authorization: 'Bearer ZCANARY',
      variables: { accessToken: 'ZCANARY' },
      err: new Error('ZCANARY'),
    };
    const line = lineOf((log) => log[level]('a sentence', fields as LogFields));
    expect(Object.keys(line).toSorted()).toEqual(['count', 'grantId', 'level', 'msg', 'time']);
    expect(JSON.stringify(line)).not.toContain('ZCANARY');
  },
);

test('a listed field takes no objects and nothing long', () => {
  const fields = { reason: { body: 'ZCANARY' }, code: ['ZCANARY'], operation: 'Z'.repeat(201), job: null };
  const line = lineOf((log) => log.info('a sentence', fields as unknown as LogFields));
  expect(Object.keys(line).toSorted()).toEqual(['level', 'msg', 'time']);
});

test('an error is told by class, code and frames, whatever its message looks like', () => {
  const message = 'ZCANARY\n    at ZCANARY (/tmp/x.js:1:2)\nZCANARY';
  const error = Object.assign(new TypeError(message, { cause: new Error('ZCANARY') }), {
    code: '23505',
    detail: 'ZCANARY',
  });
  const line = lineOf((log) => log.error('a sentence', {}, error));
  expect(line).toMatchObject({ errorName: 'TypeError', errorCode: '23505' });
  expect(line['stack']).toMatch(/^ +at .+log\.test\.ts:\d+:\d+/);
  expect(JSON.stringify(line)).not.toContain('ZCANARY');
});

test('what is no code is left out, and so is what was thrown and is no error', () => {
  const odd = Object.assign(new Error('x'), { code: 'ZCANARY in a sentence' });
  expect(lineOf((log) => log.error('a sentence', {}, odd))).not.toHaveProperty('errorCode');
  const line = lineOf((log) => log.error('a sentence', {}, 'ZCANARY'));
  expect(Object.keys(line).toSorted()).toEqual(['level', 'msg', 'time']);
});

test('every line of the server begins with a sentence that is fixed', () => {
  const sources = readdirSync('src', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !/^(generated|client)/.test(name))
    .map((name) => readFileSync(join('src', name), 'utf8'));
  const messages = sources.flatMap((text) => [...text.matchAll(/\blog\.(?:debug|info|warn|error)\(\s*([^\s])/g)]);
  expect(messages.length).toBeGreaterThan(40);
  // `message` where a log is wrapped, or a caller within the same file gives one of its own sentences.
  const others = messages.map(([, first]) => first).filter((first) => !["'", 'm', '.'].includes(first ?? ''));
  expect(others).toEqual([]);
});
