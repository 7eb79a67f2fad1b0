import { testRootKeyProvider } from './support/root-key-battery.js';
import { createEnvStage, createFileStage, createKmsStage, createPkcs11Stage } from './support/root-key-stages.js';

testRootKeyProvider('env', createEnvStage);
testRootKeyProvider('file', createFileStage);
testRootKeyProvider('pkcs11', createPkcs11Stage);
testRootKeyProvider('aws-kms', createKmsStage);
