import type { Config } from '../config.js';
import { adoptDatabase, DeploymentAliveError } from '../domain/adoption.js';
import { releaseCanaries } from '../domain/refresh-canary.js';
import { asOperator } from './installation.js';
import { CliError, type Output } from './output.js';

export interface AdoptOptions {
  restored?: boolean;
  force?: boolean;
  release?: boolean;
}

/** Ends the quarantine of the database that the settings name; its servers notice within seconds. */
export async function adopt(config: Config, output: Output, options: AdoptOptions): Promise<void> {
  if (options.release === true) return release(config, output);
  try {
    const adoption = await asOperator(config, ({ db }) => adoptDatabase(db, config, options));
    const { adopted, aliveAt, canaries } = adoption;
    output.result({ ...adoption, aliveAt: aliveAt?.toISOString() ?? null }, () =>
      adopted
        ? `adopted; the backup is of about ${aliveAt?.toISOString() ?? 'an unknown time'}. Access tokens are probed first, and of ${canaries} apps one refresh goes first.`
        : 'nothing to do: the database is of this deployment. If it was put back from a snapshot, use --restored.',
    );
  } catch (error) {
    if (!(error instanceof DeploymentAliveError)) throw error;
    throw new CliError(
      `${error.message} Two deployments that refresh the same tokens end each other's connections: stop it, wait half a minute and repeat. --force adopts all the same.`,
    );
  }
}

async function release(config: Config, output: Output): Promise<void> {
  const released = await asOperator(config, ({ db }) => releaseCanaries(db));
  output.result({ released }, () => `the refreshes of ${released} apps go on`);
}
