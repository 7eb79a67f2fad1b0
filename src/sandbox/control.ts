import type { z } from 'zod';
import { ControlError } from './control-error.js';
import {
  accountInput,
  appInput,
  appPatch,
  expiryInput,
  given,
  grantInput,
  knobsPatch,
  removalInput,
  userInput,
} from './control-input.js';
import { createMeetingControl, type MeetingControl } from './control-meetings.js';
import { deauthorizedEvent } from './events.js';
import type { FaultRuleInput } from './faults.js';
import { endGrant } from './grants.js';
import { DEFAULT_KNOBS, type Knobs } from './knobs.js';
import type { JournalEntry } from './ledger.js';
import { type Account, type App, type AppScope, type AppUsage, type Grant, grantKeyOf, type User } from './model.js';
import { tellUserRemoved } from './meeting-events.js';
import { freshState } from './state.js';
import type { WebhookValidation } from './webhook-sender.js';
import { nowMs, type World } from './world.js';

/** A grant with what its tokens are worth now. */
export interface GrantView extends Omit<Grant, 'tokens' | 'generation' | 'authorizedAt'> {
  /** ISO 8601. */
  authorizedAt: string;
  liveAccessTokens: number;
  liveRefreshTokens: number;
}

/**
 * What a person does at the Zoom Marketplace, or Zoom's operators do behind it. Input is checked (`ZodError`), and
 * everything answered is a copy.
 */
export interface Control extends MeetingControl {
  accounts(): Account[];
  createAccount(input: z.input<typeof accountInput>): Account;
  users(): User[];
  createUser(input: z.input<typeof userInput>): User;
  /** The user is deleted or deactivated at Zoom: their tokens die. A webhook is sent only if it is asked for. */
  removeUser(userId: string, input?: z.input<typeof removalInput>): User;
  /** Apps with their secrets. */
  apps(): App[];
  app(clientId: string): App;
  createApp(input: z.input<typeof appInput>): App;
  updateApp(clientId: string, patch: z.input<typeof appPatch>): App;
  /** The former client secret stops working at once. */
  rotateSecret(clientId: string): App;
  /** Sends `endpoint.url_validation` to the app's webhook URL and judges the answer. */
  validateWebhook(clientId: string): Promise<WebhookValidation>;
  grants(): GrantView[];
  /**
   * The user removes the app at Zoom: the grant ends and `app_deauthorized` is sent if the app has a webhook URL, and,
   * with the knob `strictDeauthorization`, only if it is published.
   */
  removeGrant(input: z.input<typeof grantInput>): { deliveryId: string | null };
  /** Live access tokens of the app, the user, or all, count as expired from now on. Returns how many. */
  expireAccessTokens(input?: z.input<typeof expiryInput>): number;
  knobs(): Knobs;
  /** Changes the knobs that are given and leaves the others. */
  setKnobs(patch: z.input<typeof knobsPatch>): Knobs;
  addFault(rule: FaultRuleInput): void;
  clearFaults(): void;
  /** Ledger entries after `since`, oldest first. */
  journal(since?: number): JournalEntry[];
  clearJournal(): void;
  /**
   * The first ledger entry after `since`, present or future, that fits. An entry is offered when its request arrives
   * and again when it is answered. Rejects when the sandbox closes. In-process only.
   */
  waitFor(fits: (entry: JournalEntry) => boolean, since?: number): Promise<JournalEntry>;
  /** Back to the preset accounts and users and default knobs: no apps, grants, faults, deliveries or journal. */
  reset(): void;
}

/** Zoom keeps user-level and account-level scopes apart; an app has one level. */
function checkLevels(usage: AppUsage, scopes: AppScope[]): void {
  if (usage === 'SERVER_TO_SERVER') return;
  for (const { scope } of scopes) {
    const isAccountLevel = /:(admin|master)(:|$)/.test(scope);
    if (isAccountLevel !== (usage === 'ADMIN_MANAGEMENT')) {
      throw new ControlError(400, `${scope} is not a valid scope name when usage is ${usage}.`);
    }
  }
}

function viewOf(world: World, { clientId, userId, accountId, scopes, authorizedAt, tokens }: Grant): GrantView {
  const live = tokens
    .flatMap((key) => world.state.tokens.get(key) ?? [])
    .filter((token) => token.rotatedAt === null && token.expiresAt > nowMs(world));
  return {
    clientId,
    userId,
    accountId,
    scopes: [...scopes],
    authorizedAt: new Date(authorizedAt).toISOString(),
    liveAccessTokens: live.filter(({ kind }) => kind === 'access').length,
    liveRefreshTokens: live.filter(({ kind }) => kind === 'refresh').length,
  };
}

/** The control operations on `world`. */
export function createControl(world: World): Control {
  const { state } = world;

  const find = <T>(found: T | undefined, what: string): T => {
    if (found === undefined) throw new ControlError(404, `There is no such ${what}.`);
    return found;
  };
  const appOf = (clientId: string): App => find(state.apps.get(clientId), 'app');
  const accountOf = (accountId: string | undefined): string =>
    find(accountId === undefined ? [...state.accounts.values()][0] : state.accounts.get(accountId), 'account').id;
  const saved = <T>(value: T): T => {
    world.changed();
    return structuredClone(value);
  };

  return {
    ...createMeetingControl(world),
    accounts: () => structuredClone([...state.accounts.values()]),
    createAccount: (input) => {
      const account = { id: world.mint.id(), name: accountInput.parse(input).name };
      state.accounts.set(account.id, account);
      return saved(account);
    },
    users: () => structuredClone([...state.users.values()]),
    createUser: (input) => {
      const { accountId, ...rest } = userInput.parse(input);
      if ([...state.users.values()].some(({ email, removed }) => email === rest.email && !removed)) {
        throw new ControlError(409, 'A user with this e-mail address exists.');
      }
      const user: User = { id: world.mint.id(), accountId: accountOf(accountId), ...rest, removed: false };
      state.users.set(user.id, user);
      return saved(user);
    },
    removeUser: (userId, input = {}) => {
      const { how, webhooks } = removalInput.parse(input);
      const user = find(state.users.get(userId), 'user');
      user.removed = true;
      if (webhooks) tellUserRemoved(world, user, how);
      for (const grant of state.grants.values()) if (grant.userId === userId) endGrant(world, grant);
      return saved(user);
    },
    apps: () => structuredClone([...state.apps.values()]),
    app: (clientId) => structuredClone(appOf(clientId)),
    createApp: (input) => {
      const { accountId, ...rest } = appInput.parse(input);
      checkLevels(rest.usage, rest.scopes);
      const secrets = {
        clientId: world.mint.id(),
        clientSecret: world.mint.clientSecret(),
        webhookSecret: world.mint.webhookSecret(),
      };
      const app: App = { ...secrets, ...rest, accountId: accountOf(accountId), disabled: false };
      state.apps.set(app.clientId, app);
      return saved(app);
    },
    updateApp: (clientId, patch) => {
      const app = appOf(clientId);
      const changes = given(appPatch.parse(patch));
      if (changes.scopes !== undefined) checkLevels(app.usage, changes.scopes);
      return saved(Object.assign(app, changes));
    },
    rotateSecret: (clientId) => saved(Object.assign(appOf(clientId), { clientSecret: world.mint.clientSecret() })),
    validateWebhook: (clientId) => world.webhooks.validate(appOf(clientId)),
    grants: () => [...state.grants.values()].map((grant) => viewOf(world, grant)),
    removeGrant: (input) => {
      const { clientId, userId } = grantInput.parse(input);
      const app = appOf(clientId);
      const grant = find(state.grants.get(grantKeyOf(clientId, userId)), 'grant');
      endGrant(world, grant);
      const isTold = app.published || !state.knobs.strictDeauthorization;
      return { deliveryId: isTold ? world.webhooks.deliver(app, deauthorizedEvent(world, grant)) : null };
    },
    expireAccessTokens: (input = {}) => {
      const wanted = expiryInput.parse(input);
      const now = nowMs(world);
      let count = 0;
      for (const token of state.tokens.values()) {
        if (token.kind !== 'access' || token.expiresAt <= now) continue;
        if (wanted.clientId !== undefined && token.clientId !== wanted.clientId) continue;
        if (wanted.userId !== undefined && token.userId !== wanted.userId) continue;
        token.expiresAt = now;
        count += 1;
      }
      return saved(count);
    },
    knobs: () => structuredClone(state.knobs),
    setKnobs: (patch) => {
      state.knobs = { ...state.knobs, ...given(knobsPatch.parse(patch)) };
      return saved(state.knobs);
    },
    addFault: (rule) => world.faults.add(rule),
    clearFaults: () => world.faults.clear(),
    journal: (since = 0) => world.ledger.since(since),
    clearJournal: () => world.ledger.clear(),
    waitFor: (fits, since = 0) => world.ledger.waitFor(fits, since),
    reset: () => {
      const { signingKey } = state;
      Object.assign(state, freshState(), { signingKey, knobs: { ...DEFAULT_KNOBS } });
      world.faults.clear();
      world.ledger.clear();
      world.changed();
    },
  };
}
