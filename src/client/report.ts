import { createHash } from 'node:crypto';

/** What came back is not what had to come. Values that are given must be fit to be printed. */
export class UnexpectedError extends Error {
  constructor(what: string, expected: unknown, actual: unknown) {
    super(`${what}: expected ${show(expected)}, got ${show(actual)}`);
    this.name = 'UnexpectedError';
  }
}

const show = (value: unknown): string => (typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing'));

/** @throws {UnexpectedError} unless both are the same text, number, truth value or null. */
export function expectEqual(what: string, actual: unknown, expected: unknown): void {
  if (actual !== expected) throw new UnexpectedError(what, expected, actual);
}

/** Says which secret it was without saying the secret: enough to see that two of them differ. */
export function fingerprint(secret: string): string {
  return `sha256 ${createHash('sha256').update(secret).digest('hex').slice(0, 10)}…, ${secret.length} characters`;
}

/** Prints the story as it goes. */
export interface Report {
  /** Runs one numbered step; `tell` prints what came back. A failure is printed with the step's number and passed on. */
  step<Result>(title: string, run: (tell: (line: string) => void) => Promise<Result>): Promise<Result>;
  line(text: string): void;
  problem(text: string): void;
}

/** @param color whether escape sequences may be written: only where a person reads along. */
export function createReport({ color }: { color: boolean }): Report {
  const paint = (code: number) => (text: string) => (color ? `\u001b[${code}m${text}\u001b[0m` : text);
  const [bold, red, dim] = [paint(1), paint(31), paint(2)];
  let steps = 0;

  const report: Report = {
    step: async (title, run) => {
      steps += 1;
      const label = `${steps}`.padStart(2);
      console.log(`${dim(label)}  ${bold(title)}`);
      try {
        return await run((line) => console.log(`    ${line}`));
      } catch (error) {
        report.problem(`Step ${steps} failed (${title}).`);
        throw error;
      }
    },
    line: (text) => console.log(text),
    problem: (text) => console.error(red(text)),
  };
  return report;
}
