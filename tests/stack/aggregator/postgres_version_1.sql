-- A store as schema version 1 left it: ids and windows of two days, a dead letter. Written by pg_dump.
CREATE SCHEMA version1;
CREATE TABLE version1.added (
    minute timestamp with time zone NOT NULL
);
CREATE TABLE version1.counts (
    minute timestamp with time zone NOT NULL,
    clicks bigint NOT NULL,
    cost bigint NOT NULL,
    advertiser_id text NOT NULL COLLATE pg_catalog."C",
    ad_id text NOT NULL COLLATE pg_catalog."C"
)
PARTITION BY RANGE (minute);
CREATE TABLE version1.counts_20260101 (
    minute timestamp with time zone CONSTRAINT counts_minute_not_null NOT NULL,
    clicks bigint CONSTRAINT counts_clicks_not_null NOT NULL,
    cost bigint CONSTRAINT counts_cost_not_null NOT NULL,
    advertiser_id text CONSTRAINT counts_advertiser_id_not_null NOT NULL COLLATE pg_catalog."C",
    ad_id text CONSTRAINT counts_ad_id_not_null NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE version1.counts_20260102 (
    minute timestamp with time zone CONSTRAINT counts_minute_not_null NOT NULL,
    clicks bigint CONSTRAINT counts_clicks_not_null NOT NULL,
    cost bigint CONSTRAINT counts_cost_not_null NOT NULL,
    advertiser_id text CONSTRAINT counts_advertiser_id_not_null NOT NULL COLLATE pg_catalog."C",
    ad_id text CONSTRAINT counts_ad_id_not_null NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE version1.days (
    kind text NOT NULL,
    day date NOT NULL,
    CONSTRAINT days_kind_check CHECK ((kind = ANY (ARRAY['ids'::text, 'counts'::text])))
);
CREATE TABLE version1.dead (
    topic text NOT NULL COLLATE pg_catalog."C",
    topic_id text NOT NULL COLLATE pg_catalog."C",
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    key bytea,
    value bytea,
    headers bytea,
    "timestamp" bigint NOT NULL,
    delivered boolean DEFAULT false NOT NULL
);
CREATE TABLE version1.ids (
    digest bigint NOT NULL,
    payload bigint NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE version1.ids_20260101 (
    digest bigint CONSTRAINT ids_digest_not_null NOT NULL,
    payload bigint CONSTRAINT ids_payload_not_null NOT NULL,
    id text CONSTRAINT ids_id_not_null NOT NULL COLLATE pg_catalog."C"
)
INHERITS (version1.ids)
WITH (autovacuum_enabled='false', toast.autovacuum_enabled='false');
CREATE TABLE version1.ids_20260102 (
    digest bigint CONSTRAINT ids_digest_not_null NOT NULL,
    payload bigint CONSTRAINT ids_payload_not_null NOT NULL,
    id text CONSTRAINT ids_id_not_null NOT NULL COLLATE pg_catalog."C"
)
INHERITS (version1.ids)
WITH (autovacuum_enabled='false', toast.autovacuum_enabled='false');
CREATE TABLE version1.meta (
    name text NOT NULL,
    value text NOT NULL
);
CREATE TABLE version1.offsets (
    topic text NOT NULL COLLATE pg_catalog."C",
    topic_id text NOT NULL COLLATE pg_catalog."C",
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    leader_epoch integer NOT NULL,
    event_time bigint NOT NULL
);
CREATE VIEW version1.windows AS
 SELECT minute,
    advertiser_id,
    ad_id,
    (sum(clicks))::bigint AS clicks,
    sum(cost) AS cost
   FROM version1.counts
  GROUP BY minute, advertiser_id, ad_id;
ALTER TABLE ONLY version1.counts ATTACH PARTITION version1.counts_20260101 FOR VALUES FROM ('2026-01-01 00:00:00+00') TO ('2026-01-02 00:00:00+00');
ALTER TABLE ONLY version1.counts ATTACH PARTITION version1.counts_20260102 FOR VALUES FROM ('2026-01-02 00:00:00+00') TO ('2026-01-03 00:00:00+00');
INSERT INTO version1.counts_20260101 VALUES ('2026-01-01 23:59:00+00', 6, 18, 'nike', 'ad1');
INSERT INTO version1.counts_20260101 VALUES ('2026-01-01 23:59:00+00', 6, 12, 'nike', 'ad0');
INSERT INTO version1.counts_20260101 VALUES ('2026-01-01 23:59:00+00', 1, 0, 'nike', 'ad');
INSERT INTO version1.counts_20260102 VALUES ('2026-01-02 00:00:00+00', 3, 0, 'nike', 'ad');
INSERT INTO version1.days VALUES ('counts', '2026-01-01');
INSERT INTO version1.days VALUES ('ids', '2026-01-01');
INSERT INTO version1.days VALUES ('ids', '2026-01-02');
INSERT INTO version1.days VALUES ('counts', '2026-01-02');
INSERT INTO version1.dead VALUES ('clicks', 'topic-id-1', 1, 4, 'Empty', 'no value', NULL, NULL, '\x90', -1, false);
INSERT INTO version1.ids_20260101 VALUES (-3976575750971393637, -1443458356, 'a1');
INSERT INTO version1.ids_20260101 VALUES (-2435637671304448795, 662868109, 'a5');
INSERT INTO version1.ids_20260101 VALUES (4425497908647548649, -1387588899, 'a2');
INSERT INTO version1.ids_20260101 VALUES (7366485852580982405, -1514798805, 'a4');
INSERT INTO version1.ids_20260101 VALUES (8280396001262041827, 796885883, 'a3');
INSERT INTO version1.ids_20260101 VALUES (8345523441576599974, 734135146, 'a0');
INSERT INTO version1.ids_20260102 VALUES (-9182302019125141697, 1900055342, 'b2');
INSERT INTO version1.ids_20260102 VALUES (-7885759799292968437, 2042468568, 'b4');
INSERT INTO version1.ids_20260102 VALUES (-2578172403506052351, -137782631, 'b0');
INSERT INTO version1.ids_20260102 VALUES (501362365679128035, 1979517759, 'b1');
INSERT INTO version1.ids_20260102 VALUES (4053480878922621740, -210494840, 'b3');
INSERT INTO version1.ids_20260102 VALUES (4622980492269509885, -74905218, 'b5');
INSERT INTO version1.ids_20260102 VALUES (-7146741298519244138, 1431691967, 'c2');
INSERT INTO version1.ids_20260102 VALUES (-2388228376865498871, 1772000734, 'c1');
INSERT INTO version1.ids_20260102 VALUES (-2137875743371278675, 1024821434, 'c0');
INSERT INTO version1.ids_20260102 VALUES (4598601107220572929, -1588130826, 'c3');
INSERT INTO version1.meta VALUES ('seed', '3966642786483652598');
INSERT INTO version1.meta VALUES ('forgotten_ids', '0');
INSERT INTO version1.meta VALUES ('expired_clicks', '0');
INSERT INTO version1.meta VALUES ('schema_version', '1');
INSERT INTO version1.meta VALUES ('stream', 'cluster/clicks');
INSERT INTO version1.offsets VALUES ('clicks', 'topic-id-1', 0, 12, -1, -1);
INSERT INTO version1.offsets VALUES ('clicks', 'topic-id-1', 1, 5, -1, -1);
ALTER TABLE ONLY version1.days
    ADD CONSTRAINT days_pkey PRIMARY KEY (kind, day);
ALTER TABLE ONLY version1.dead
    ADD CONSTRAINT dead_pkey PRIMARY KEY (topic, topic_id, partition, "offset");
ALTER TABLE ONLY version1.meta
    ADD CONSTRAINT meta_pkey PRIMARY KEY (name);
ALTER TABLE ONLY version1.offsets
    ADD CONSTRAINT offsets_pkey PRIMARY KEY (topic, topic_id, partition);
CREATE INDEX counts_minute ON ONLY version1.counts USING btree (minute, "left"(advertiser_id, 100));
CREATE INDEX counts_20260101_minute_left_idx ON version1.counts_20260101 USING btree (minute, "left"(advertiser_id, 100));
CREATE INDEX counts_20260102_minute_left_idx ON version1.counts_20260102 USING btree (minute, "left"(advertiser_id, 100));
CREATE INDEX dead_undelivered ON version1.dead USING btree ("offset", topic, partition) WHERE (NOT delivered);
CREATE UNIQUE INDEX ids_20260101_digest ON version1.ids_20260101 USING btree (digest);
CREATE UNIQUE INDEX ids_20260102_digest ON version1.ids_20260102 USING btree (digest);
ALTER INDEX version1.counts_minute ATTACH PARTITION version1.counts_20260101_minute_left_idx;
ALTER INDEX version1.counts_minute ATTACH PARTITION version1.counts_20260102_minute_left_idx;
