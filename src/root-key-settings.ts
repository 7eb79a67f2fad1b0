import { z } from 'zod';

/** A place that root keys are in. `file` without a path: made once in development. */
export type RootKeySource =
  | { kind: 'env' | 'file' }
  | { kind: 'pkcs11'; module: string; tokenLabel: string; keyLabels: readonly string[]; pinFile: string }
  | { kind: 'aws-kms'; keyArns: readonly string[]; endpoint: string | null };

const KMS_KEY = /^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key\/[A-Za-z0-9-]+$/;

/** Several values in one setting, newest first. */
const list = <T extends string>(item: z.ZodType<T, string>) =>
  z
    .string()
    .transform((value) => value.split(',').map((part) => part.trim()))
    .pipe(z.array(item).refine((values) => new Set(values).size === values.length, 'must not name one twice'));

/** What the environment says of root keys, apart from addresses and times. */
export const RootKeySettings = {
  LATCHKEY_ROOT_KEY: z.string().optional(),
  LATCHKEY_ROOT_KEY_FILE: z.string().optional(),
  LATCHKEY_ROOT_KEY_PROVIDER: list(
    z.enum(['env', 'file', 'pkcs11', 'aws-kms'], 'must be env, file, pkcs11, aws-kms, or several with commas'),
  ).optional(),
  LATCHKEY_PKCS11_MODULE: z.string().optional(),
  LATCHKEY_PKCS11_TOKEN: z.string().optional(),
  LATCHKEY_PKCS11_KEYS: list(z.string().min(1, 'must be labels with commas between them')).optional(),
  LATCHKEY_PKCS11_PIN_FILE: z.string().optional(),
  LATCHKEY_AWS_KMS_KEYS: list(
    z.string().regex(KMS_KEY, 'must be ARNs of keys (arn:aws:kms:…:key/…) with commas between them'),
  ).optional(),
};

type Given = z.infer<z.ZodObject<typeof RootKeySettings>> & { LATCHKEY_AWS_KMS_ENDPOINT?: string | undefined };

/** What each provider of root keys must be told. */
const PROVIDER_SETTINGS = {
  env: ['LATCHKEY_ROOT_KEY'],
  file: ['LATCHKEY_ROOT_KEY_FILE'],
  pkcs11: ['LATCHKEY_PKCS11_MODULE', 'LATCHKEY_PKCS11_TOKEN', 'LATCHKEY_PKCS11_KEYS', 'LATCHKEY_PKCS11_PIN_FILE'],
  'aws-kms': ['LATCHKEY_AWS_KMS_KEYS'],
};

/** Settings of root keys that contradict each other, or are missing. */
export function rootKeyProblems(given: Readonly<Record<string, string | undefined>>): string[] {
  const named = RootKeySettings.LATCHKEY_ROOT_KEY_PROVIDER.safeParse(given['LATCHKEY_ROOT_KEY_PROVIDER']);
  // Said to be wrong by itself: what follows from it is not known.
  if (!named.success) return [];
  const providers: readonly string[] | undefined = named.data;
  const hasBoth = given['LATCHKEY_ROOT_KEY'] !== undefined && given['LATCHKEY_ROOT_KEY_FILE'] !== undefined;
  if (providers === undefined && hasBoth)
    return ['LATCHKEY_ROOT_KEY and LATCHKEY_ROOT_KEY_FILE are both set; set one.'];
  return Object.entries(PROVIDER_SETTINGS).flatMap(([provider, names]) => {
    const isNamed = providers?.includes(provider) ?? false;
    if (isNamed) {
      const missing = names.filter((name) => given[name] === undefined);
      return missing.map((name) => `${name} is missing: LATCHKEY_ROOT_KEY_PROVIDER names ${provider}.`);
    }
    // Without a list, the settings of the two that need none say which one it is.
    if (providers === undefined && (provider === 'env' || provider === 'file')) return [];
    const idle = names.filter((name) => given[name] !== undefined);
    return idle.map((name) => `${name} is set, but LATCHKEY_ROOT_KEY_PROVIDER does not name ${provider}.`);
  });
}

/** Which providers there are, newest first. */
export function rootKeySources(settings: Given): RootKeySource[] {
  const implied = settings.LATCHKEY_ROOT_KEY === undefined ? 'file' : 'env';
  return (settings.LATCHKEY_ROOT_KEY_PROVIDER ?? [implied]).map((kind): RootKeySource => {
    if (kind === 'aws-kms') {
      const { LATCHKEY_AWS_KMS_KEYS: keyArns = [], LATCHKEY_AWS_KMS_ENDPOINT: endpoint = null } = settings;
      return { kind, keyArns, endpoint };
    }
    if (kind !== 'pkcs11') return { kind };
    return {
      kind,
      module: settings.LATCHKEY_PKCS11_MODULE ?? '',
      tokenLabel: settings.LATCHKEY_PKCS11_TOKEN ?? '',
      keyLabels: settings.LATCHKEY_PKCS11_KEYS ?? [],
      pinFile: settings.LATCHKEY_PKCS11_PIN_FILE ?? '',
    };
  });
}
