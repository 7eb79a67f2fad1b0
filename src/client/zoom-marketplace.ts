const DEADLINE_MS = 10_000;

/** A person at the sandbox. */
export interface ZoomUser {
  id: string;
  accountId: string;
  displayName: string;
  role: 'Owner' | 'Admin' | 'Member';
}

/** An app at the sandbox, with the secrets that Zoom shows its developer. */
export interface ZoomApp {
  clientId: string;
  clientSecret: string;
  webhookSecret: string;
}

/** What people do by hand at the Zoom Marketplace, done at the sandbox through its control API. */
export interface ZoomMarketplace {
  users(): Promise<ZoomUser[]>;
  createApp(app: {
    name: string;
    usage: 'USER_OPERATION' | 'ADMIN_MANAGEMENT';
    scopes: readonly string[];
  }): Promise<ZoomApp>;
  /** Pastes the two URLs into the app's form. */
  pasteUrls(clientId: string, urls: { redirectUri: string; webhookUrl: string }): Promise<void>;
  /** Presses "Validate" beside the webhook URL. @returns whether Zoom is content with the answer. */
  validateWebhook(clientId: string): Promise<boolean>;
  /** The user removes the app; Zoom tells the app's webhook URL. */
  removeApp(clientId: string, userId: string): Promise<void>;
  accessTokenSeconds(): Promise<number>;
  setAccessTokenSeconds(seconds: number): Promise<void>;
}

/** @param sandboxUrl without a slash at the end. Every call gives up after ten seconds. */
export function createZoomMarketplace(sandboxUrl: string): ZoomMarketplace {
  async function call<Result>(method: string, path: string, body?: unknown): Promise<Result> {
    const response = await fetch(`${sandboxUrl}/_sandbox${path}`, {
      method,
      ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    // What the sandbox answers may hold an app's secrets, so a failure tells the status alone.
    if (!response.ok) throw new Error(`the sandbox answered ${method} ${path} with HTTP ${response.status}`);
    return (await response.json()) as Result;
  }

  return {
    users: () => call('GET', '/users'),
    createApp: ({ name, usage, scopes }) =>
      call('POST', '/apps', { name, usage, scopes: scopes.map((scope) => ({ scope, optional: false })) }),
    pasteUrls: async (clientId, { redirectUri, webhookUrl }) => {
      await call('PATCH', `/apps/${clientId}`, { redirectUris: [redirectUri], webhookUrl, published: true });
    },
    validateWebhook: async (clientId) =>
      (await call<{ valid: boolean }>('POST', `/apps/${clientId}/validate-webhook`)).valid,
    removeApp: async (clientId, userId) => {
      await call('POST', '/grants/remove', { clientId, userId });
    },
    accessTokenSeconds: async () => (await call<{ accessTokenSeconds: number }>('GET', '/knobs')).accessTokenSeconds,
    setAccessTokenSeconds: async (accessTokenSeconds) => {
      await call('PUT', '/knobs', { accessTokenSeconds });
    },
  };
}
