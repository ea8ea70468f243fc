#include "lib/lab/schema.h"

#include <fmt/format.h>

namespace zx::lab {
namespace {

struct Database {
  const char* name;
  const char* sql;
};

// Rows are computed, not random: every lab holds the same.
constexpr Database kDatabases[] = {
    {"zhi_xuan_user", R"sql(
CREATE TABLE users (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  city text NOT NULL,
  phone text NOT NULL UNIQUE,
  registered_at timestamptz NOT NULL);
INSERT INTO users (name, city, phone, registered_at)
SELECT (ARRAY['王','李','张','刘','陈','杨','赵','黄','周','吴'])[1 + i % 10]
    || (ARRAY['秀英','伟','芳','娜','敏','静','强','磊','洋','子涵','欣怡'])[1 + i % 11],
       (ARRAY['北京','上海','深圳','广州','成都','杭州','武汉'])[1 + i % 7],
       '138' || lpad((10000000 + i * 7919)::text, 8, '0'),
       timestamptz '2025-01-01 00:00+08' + i * interval '7 hours'
FROM generate_series(1, 300) AS i;
)sql"},
    {"zhi_xuan_product", R"sql(
CREATE TABLE products (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  category text NOT NULL,
  price numeric(10, 2) NOT NULL CHECK (price > 0));
INSERT INTO products (name, category, price)
SELECT (ARRAY['西湖龙井','景德镇茶杯','真丝围巾','竹编提篮','无线耳机','智能手表','羽绒服','机械键盘'])[1 + i % 8]
    || ' ' || (ARRAY['经典款','轻享版','礼盒装','旗舰版','青春版'])[1 + i % 5],
       (ARRAY['茶叶','家居','服饰','家居','数码','数码','服饰','数码'])[1 + i % 8],
       19.90 + i * 3.50
FROM generate_series(1, 240) AS i;
)sql"},
    {"zhi_xuan_order", R"sql(
CREATE TABLE orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id bigint NOT NULL,
  product_id bigint NOT NULL,
  quantity int NOT NULL CHECK (quantity > 0),
  status text NOT NULL,
  address text NOT NULL,
  placed_at timestamptz NOT NULL);
INSERT INTO orders (user_id, product_id, quantity, status, address, placed_at)
SELECT 1 + (i * 37) % 300, 1 + (i * 53) % 240, 1 + i % 4,
       (ARRAY['待付款','已付款','已发货','已签收','已退款'])[1 + i % 5],
       (ARRAY['北京市朝阳区建国路','上海市浦东新区世纪大道','深圳市南山区科苑路'])[1 + i % 3]
    || (1 + i % 199) || '号',
       timestamptz '2026-06-01 00:00+08' + i * interval '23 minutes'
FROM generate_series(1, 500) AS i;
)sql"},
    {"zhi_xuan_inventory", R"sql(
CREATE TABLE stock (
  warehouse text NOT NULL,
  product_id bigint NOT NULL,
  quantity int NOT NULL CHECK (quantity >= 0),
  PRIMARY KEY (warehouse, product_id));
INSERT INTO stock (warehouse, product_id, quantity)
SELECT warehouse, i, (i * 17) % 200
FROM unnest(ARRAY['北京一号仓','上海二号仓','深圳三号仓']) AS warehouse, generate_series(1, 240) AS i;
)sql"},
    {"zhi_xuan_marketing", R"sql(
CREATE TABLE coupons (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  campaign text NOT NULL,
  code text NOT NULL UNIQUE,
  discount_percent int NOT NULL CHECK (discount_percent BETWEEN 1 AND 90),
  is_used boolean NOT NULL DEFAULT false);
INSERT INTO coupons (campaign, code, discount_percent, is_used)
SELECT (ARRAY['双十一满减','春节红包','618年中大促','会员日','新人专享'])[1 + i % 5],
       'ZX' || lpad(to_hex(i * 65537), 8, '0'), 5 + (i % 10) * 5, i % 3 = 0
FROM generate_series(1, 400) AS i;
)sql"},
};

}  // namespace

std::vector<std::string> database_names() {
  std::vector<std::string> names;
  for (const auto& database : kDatabases) names.emplace_back(database.name);
  return names;
}

std::string databases_sql() {
  std::string sql;
  for (const auto& database : kDatabases)
    sql += fmt::format("CREATE DATABASE {0};\n\\connect {0}\nBEGIN;{1}COMMIT;\n", database.name,
                       database.sql);
  return sql;
}

}  // namespace zx::lab
