import { type Config, ConfigError, readConfig } from '../config.js';
import { findNetworkTroubles } from './doctor-network.js';
import { type Finding, failed, passed, warned } from './doctor-finding.js';
import { findDatabaseTroubles } from './doctor-database.js';
import { findRootKeys } from './doctor-root-key.js';
import { EXIT, type ExitCode, type Output, styled } from './output.js';

/**
 * Looks at everything a server needs, changes nothing, and says for each failure what mends it.
 *
 * @returns `failed` where a check did not pass; warnings do not count.
 */
export async function doctor(env: Record<string, string | undefined>, output: Output): Promise<ExitCode> {
  const findings = await examine(env);
  const healthy = findings.every(({ status }) => status !== 'failed');
  output.result({ healthy, checks: findings }, () => findings.map(line).join('\n'));
  return healthy ? EXIT.done : EXIT.failed;
}

async function examine(env: Record<string, string | undefined>): Promise<Finding[]> {
  let config: Config;
  try {
    config = readConfig(env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map((problem) =>
      failed('settings', problem, 'Set it as the message says; README.md lists the settings.'),
    );
  }
  const mode = config.production
    ? passed('settings', 'complete for production')
    : warned('settings', 'for development', 'Set NODE_ENV=production where it serves others.');
  const { finding, rootKeys } = await findRootKeys(config);
  return [mode, finding, ...(await findDatabaseTroubles(config, rootKeys)), ...(await findNetworkTroubles(config))];
}

const SIGNS = { passed: 'ok  ', warned: 'warn', failed: 'FAIL' } as const;
const COLOURS = { passed: 'green', warned: 'yellow', failed: 'red' } as const;

function line({ check, status, detail, remedy }: Finding): string {
  const head = `${styled(COLOURS[status], SIGNS[status])}  ${check.padEnd(13)}  ${detail}`;
  return remedy === null ? head : `${head}\n      ${' '.repeat(13)}  ${remedy}`;
}
