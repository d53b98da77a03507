-- Wakes the publisher of every replica at commit. A rule and not a trigger, because the body of a
-- trigger needs semicolons, at which @prisma/adapter-pg would cut it. PostgreSQL folds the
-- notifications of one transaction into one.
CREATE RULE "outbox_notify" AS ON INSERT TO "Outbox" DO ALSO NOTIFY outbox;
