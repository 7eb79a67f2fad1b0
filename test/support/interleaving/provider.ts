import { endGrant, grantOf, issueForCode, recordConsent, rotate } from '../../../src/sandbox/grants.js';
import { DEFAULT_KNOBS, type Knobs } from '../../../src/sandbox/knobs.js';
import { hashOf } from '../../../src/sandbox/mint.js';
import type { App } from '../../../src/sandbox/model.js';
import { freshState } from '../../../src/sandbox/state.js';
import type { World } from '../../../src/sandbox/world.js';
import { Secret } from '../../../src/secret.js';
import {
  ZoomAccessTokenRejectedError,
  ZoomClientRejectedError,
  ZoomGrantInvalidError,
  ZoomRateLimitedError,
  ZoomUnavailableError,
} from '../../../src/zoom/errors.js';
import type { TokenSet, Zoom } from '../../../src/zoom/zoom.js';
import type { Actor, Steps } from './steps.js';
import type { ModelTime } from './world.js';

export const TOKEN_SECONDS = 3_600;
const SCOPES = ['user:read:user'];
const API_URL = 'https://api.zoom.us';

/**
 * What becomes of one request. `lost`: it is carried out and its answer never read; `timeout`: the asker gives up, and it
 * is carried out whenever it arrives; `unheard`: it never arrives and nobody knows.
 */
export type Fate =
  'answer' | 'lost' | 'timeout' | 'unheard' | 'not-sent' | 'unavailable' | 'rate-limited' | 'invalid-client';

/** One time that a refresh token was presented. */
export interface Presentation {
  token: string;
  actor: Actor;
  /** When its asker first took a lease of it; null if it never did. */
  leaseAt: number | null;
  /** When it ended for the asker without an answer, so that nobody knows; null while it has not. */
  lostAt: number | null;
  /** The provider has not carried it out and never will, and the asker was told. */
  isVoid: boolean;
  /** The refresh token that was handed out for it. */
  handedOut: string | null;
}

/** The provider of the model: the sandbox's own rules for grants, without HTTP, and a fate for each request. */
export interface Provider {
  /** The port as one process sees it: that requests go out, arrive and are answered are steps. */
  portFor(actor: Actor): Zoom;
  /** The user consents (anew); tokens of earlier consents die. */
  consent(): TokenSet;
  worksToRefresh(refreshToken: string): boolean;
  worksToRead(accessToken: string): boolean;
  readonly presentations: Presentation[];
  /** From now on every request is answered. */
  heal(): void;
}

export interface ProviderOptions {
  steps: Steps;
  time: ModelTime;
  clientId: string;
  mode: Knobs['refreshMode'];
  /** Of the requests to refresh, in the order they go out; later ones are answered. */
  fates: readonly Fate[];
  onPresent(presentation: Presentation, earlier: readonly Presentation[]): void;
}

export function createProvider({ steps, time, clientId, mode, fates, onPresent }: ProviderOptions): Provider {
  let minted = 0;
  let asked = 0;
  let healed = false;
  const presentations: Presentation[] = [];
  const state = freshState();
  state.knobs = { ...DEFAULT_KNOBS, refreshMode: mode, graceSeconds: 600, accessTokenSeconds: TOKEN_SECONDS };
  const clock = { now: () => new Date(time.nowMs()), sleep: () => Promise.resolve() };
  const mint = { token: ({ kind }: { kind: string }) => `${kind}-${(minted += 1)}` };
  const world = { state, clock, mint, changed: () => undefined } as unknown as World;
  const [user] = state.users.values();
  const app = { clientId, disabled: false } as App;
  if (user === undefined) throw new Error('The sandbox has nobody in it.');

  const tokensOf = (pair: { accessToken: string; refreshToken: string; scopes: string[] }): TokenSet => ({
    accessToken: new Secret(pair.accessToken),
    refreshToken: new Secret(pair.refreshToken),
    tokenType: 'bearer',
    expiresInSeconds: TOKEN_SECONDS,
    scopes: pair.scopes,
    apiUrl: API_URL,
  });

  /** The request reaches the provider, whether or not its sender still lives. */
  const arrive = (presentation: Presentation): Promise<TokenSet | null> =>
    steps.step(`${presentation.actor.name}'s ${presentation.token} arrives`, () => {
      const pair = rotate(world, app, presentation.token);
      steps.trace.push(typeof pair === 'string' ? pair : `rotated to ${pair.refreshToken}`);
      if (typeof pair === 'string') return null;
      presentation.handedOut = pair.refreshToken;
      return tokensOf(pair);
    });

  async function refresh(actor: Actor, token: string): Promise<TokenSet> {
    const drawn = await actor.step(`sends ${token}`, () => draw());
    const fail = (error: Error) =>
      actor.step(`has no answer for ${token}`, (): never => {
        if (presentation !== null && error instanceof ZoomUnavailableError && error.stage === 'unanswered') {
          presentation.lostAt = time.nowMs();
        } else if (presentation !== null) {
          presentation.isVoid = true;
        }
        throw error;
      });
    const presentation = drawn === 'not-sent' ? null : present(actor, token);

    if (presentation === null) return fail(new ZoomUnavailableError('not-sent'));
    if (drawn === 'timeout') {
      void arrive(presentation);
      return fail(new ZoomUnavailableError('unanswered'));
    }
    if (drawn === 'unheard') return fail(new ZoomUnavailableError('unanswered'));
    if (drawn === 'unavailable') return fail(new ZoomUnavailableError('answered', 1));
    if (drawn === 'rate-limited') return fail(new ZoomRateLimitedError(2));
    if (drawn === 'invalid-client') return fail(new ZoomClientRejectedError());
    const tokens = await arrive(presentation);
    if (drawn === 'lost') return fail(new ZoomUnavailableError('unanswered'));
    return actor.step(`reads the answer for ${token}`, () => {
      if (tokens === null) throw new ZoomGrantInvalidError('REJECTED');
      return tokens;
    });
  }

  const draw = (): Fate => {
    asked += 1;
    return healed ? 'answer' : (fates[asked - 1] ?? 'answer');
  };

  function present(actor: Actor, token: string): Presentation {
    const leaseAt = actor.leases.find(({ refreshToken }) => refreshToken === token)?.at ?? null;
    const presentation: Presentation = { token, actor, leaseAt, lostAt: null, isVoid: false, handedOut: null };
    onPresent(
      presentation,
      presentations.filter((earlier) => earlier.token === token),
    );
    presentations.push(presentation);
    return presentation;
  }

  function revoke(token: string): void {
    const found = state.tokens.get(hashOf(token));
    if (found === undefined || found.rotatedAt !== null || found.expiresAt <= time.nowMs()) return;
    const grant = grantOf(world, app, user!);
    if (grant !== null) endGrant(world, grant);
  }

  const worksToRead = (accessToken: string) => {
    const token = state.tokens.get(hashOf(accessToken));
    return token?.kind === 'access' && token.expiresAt > time.nowMs();
  };
  const outOfModel = (): never => {
    throw new Error('The model has no such request.');
  };

  return {
    presentations,
    portFor: (actor) => ({
      refresh: (_client, refreshToken) => refresh(actor, refreshToken.reveal()),
      revoke: (_client, token) => actor.step(`revokes ${token.reveal()}`, () => revoke(token.reveal())),
      currentUser: ({ accessToken }) =>
        actor.step(`asks who ${accessToken.reveal()} is`, () => {
          if (!worksToRead(accessToken.reveal())) throw new ZoomAccessTokenRejectedError();
          const { id: userId, accountId, email, displayName } = user;
          return { userId, accountId, email, displayName, personalMeetingId: null };
        }),
      authorizationUrl: outOfModel,
      exchangeCode: outOfModel,
      mintAccountToken: outOfModel,
      readAccount: outOfModel,
      get meetings() {
        return outOfModel();
      },
    }),
    consent: () => {
      recordConsent(world, app, user, SCOPES);
      return tokensOf(issueForCode(world, grantOf(world, app, user)!, SCOPES));
    },
    worksToRefresh: (refreshToken) => {
      const token = state.tokens.get(hashOf(refreshToken));
      if (token?.kind !== 'refresh') return false;
      const grant = grantOf(world, app, user);
      if (token.rotatedAt === null) return grant !== null;
      if (grant === null) return false;
      if (mode === 'grace') return time.nowMs() - token.rotatedAt <= state.knobs.graceSeconds * 1_000;
      return mode === 'tolerance' && grant.generation - token.generation <= state.knobs.tolerance;
    },
    worksToRead,
    heal: () => {
      healed = true;
    },
  };
}
