package x; public class X { public static void main(String[] a){ System.out.println(org.apache.commons.lang3.StringUtils.upperCase("x")); } }
