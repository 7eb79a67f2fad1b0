import { setTimeout as sleep } from 'node:timers/promises';
import { expectEqual, fingerprint, type Report, UnexpectedError } from './report.js';
import {
  callZoom,
  expectAlert,
  expectType,
  expectZoomAccepts,
  type Props,
  readCredential,
  type Stage,
} from './stage.js';
import { connect, type TripEnd } from './trip.js';

/** Life of an access token in the part of the story where one has to expire, and what it is otherwise. */
const SHORT_SECONDS = 4;
const USUAL_SECONDS = 3_600;
/** A token that outlives this was not made with the short life. */
const PATIENCE_MS = 30_000;

/** The connections that the rest of the story ends again. */
export interface Connections {
  installationId: string;
  /** Of Ben, who is `user_1` at the product. */
  userConnectionId: string;
  /** The end of Ben's trip, whose connect code is spent. */
  spent: TripEnd;
}

/** An admin installs, a user authorizes, their credentials work, and go on working beyond the token's life. */
export async function playConnecting(stage: Stage, props: Props, report: Report): Promise<Connections> {
  const { cast, adminApp, userApp, tenantId } = props;

  const installation = await report.step(
    'An admin installs: start page, consent, callback, completion',
    async (tell) => {
      const since = performance.now();
      const trip = { field: 'beginInstallation', app: adminApp, tenantId, userId: 'admin_1', as: cast.admin } as const;
      const grant = await connect(stage, trip);
      tell(`${cast.admin.displayName} allowed: ${grant.__typename} ${grant.health.status}, ${scopesOf(grant)}`);
      tell(await expectAlert(props, grant.id, { current: 'HEALTHY', reason: 'CONNECTED', since }));
      return grant;
    },
  );

  return withShortTokens(stage, async (restore) => {
    const user = await report.step('A user authorizes', async (tell) => {
      const since = performance.now();
      const trip = { field: 'beginAuthorization', app: userApp, tenantId, userId: 'user_1', as: cast.ben } as const;
      const grant = await connect(stage, trip);
      tell(`${cast.ben.displayName} allowed: ${grant.__typename} ${grant.health.status}, ${scopesOf(grant)}`);
      tell(`  their access token lives ${SHORT_SECONDS} s only, so that it expires while we watch`);
      tell(await expectAlert(props, grant.id, { current: 'HEALTHY', reason: 'CONNECTED', since }));
      return grant;
    });

    const short = await report.step('The backend asks for credentials, and Zoom takes them', async (tell) => {
      const own = await readAndUse({ tenantId, credentialFor: 'USER', userId: 'user_1' }, tell);
      await restore();
      await readAndUse({ tenantId, credentialFor: 'INSTALLATION' }, tell);
      return own;
    });

    await report.step('The token expires, and the next read is answered all the same', async (tell) => {
      const left = Date.parse(short.expiresAt) - Date.now();
      if (left > PATIENCE_MS)
        throw new UnexpectedError('life of the token', `${SHORT_SECONDS} s`, `${Math.ceil(left / 1_000)} s`);
      await sleep(Math.max(0, left) + 300);
      expectEqual('what Zoom says to the expired token', (await callZoom(short)).status, 401);
      tell('the former token: Zoom answers 401');
      const fresh = await readAndUse({ tenantId, credentialFor: 'USER', userId: 'user_1' }, tell);
      tell(`  ${whenRefreshed(short.expiresAt, fresh.grant.credentialInfo?.lastRefreshedAt ?? null)}`);
      if (fresh.version <= short.version)
        throw new UnexpectedError('version', `more than ${short.version}`, fresh.version);
      expectEqual('the token is another one', fresh.accessToken === short.accessToken, false);
    });

    return { installationId: installation.id, userConnectionId: user.id, spent: user.end };
  });

  async function readAndUse(input: Record<string, unknown>, tell: (line: string) => void) {
    const answer = expectType('credential', await readCredential(stage, input), 'Credential');
    expectEqual('warning', answer.warning, null);
    const owner = input['credentialFor'] === 'USER' ? cast.ben : cast.admin;
    await expectZoomAccepts(answer, owner);
    tell(`${String(input['credentialFor'])}: version ${answer.version}, token ${fingerprint(answer.accessToken)}`);
    tell(`  GET /v2/users/me → 200, it speaks for ${owner.displayName}`);
    return answer;
  }
}

function whenRefreshed(expiredAt: string, refreshedAt: string | null): string {
  const aheadMs = refreshedAt === null ? 0 : Date.parse(expiredAt) - Date.parse(refreshedAt);
  if (aheadMs <= 0) return 'refreshed by this read';
  return `refreshed ${(aheadMs / 1_000).toFixed(1)} s before the former one expired, while nobody asked`;
}

const scopesOf = (grant: { grantedScopes: { name: string }[] }): string =>
  `scopes ${grant.grantedScopes.map(({ name }) => name).join(' ')}`;

/**
 * Makes the sandbox hand out short-lived tokens until `restore` is called, at the latest when `run` has ended, also by
 * a failure or Ctrl-C: the setting is everybody's who uses the sandbox.
 */
async function withShortTokens<Result>(
  stage: Stage,
  run: (restore: () => Promise<void>) => Promise<Result>,
): Promise<Result> {
  const found = await stage.zoom.accessTokenSeconds();
  // Our own value was left behind by a run that was killed, or belongs to one that runs beside this one.
  const usual = found === SHORT_SECONDS ? USUAL_SECONDS : found;
  const restore = () => stage.zoom.setAccessTokenSeconds(usual);
  const onInterrupt = () => void restore().finally(() => process.exit(130));
  process.once('SIGINT', onInterrupt);
  try {
    await stage.zoom.setAccessTokenSeconds(SHORT_SECONDS);
    return await run(restore);
  } finally {
    process.off('SIGINT', onInterrupt);
    await restore();
  }
}
